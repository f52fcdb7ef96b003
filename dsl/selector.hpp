#pragma once

// Which rules of the grammar leave a node in the parse tree. The others' nodes go to their parent.

#include <tao/pegtl/contrib/parse_tree.hpp>

#include "dsl/grammar.hpp"

namespace proviso::dsl {

template <class Rule>
struct selector
    : tao::pegtl::parse_tree::selector<
          Rule,
          tao::pegtl::parse_tree::store_content::on<
              // words and literals
              grammar::word, grammar::own_name, grammar::name, grammar::label, grammar::feature_name,
              grammar::circuit_name, grammar::text, grammar::regex, grammar::number, grammar::range_end, grammar::bound,
              grammar::date, grammar::hash, grammar::title, grammar::compare, grammar::operation, grammar::preposition,
              grammar::everything, grammar::kw_position, grammar::kw_generated, grammar::last_of_prompt,
              grammar::all_of_prompt, grammar::kw_take, grammar::kw_seed, grammar::kw_field, grammar::kw_answer,
              grammar::kw_cluster, grammar::keep_unit, grammar::relative, grammar::library_name,
              grammar::requirement_key,
              // sites and prompts
              grammar::site, grammar::site_word, grammar::layers_part, grammar::heads_part, grammar::index_range,
              grammar::string_list, grammar::prompt_item, grammar::prompt_list,
              // calls and values
              grammar::call, grammar::constructor, grammar::loose_call, grammar::metric, grammar::argument,
              grammar::rule_ref, grammar::edit_ref, grammar::difference, grammar::value_list, grammar::compared,
              // conditions and interventions
              grammar::condition, grammar::conjunction, grammar::unary, grammar::negation, grammar::any_position,
              grammar::last_token, grammar::prompt_matches, grammar::token_in, grammar::token_text, grammar::token_list,
              grammar::comparison, grammar::intervention, grammar::inner_intervention, grammar::patch,
              // statements
              grammar::expectation, grammar::beyond_control, grammar::confidence, grammar::across, grammar::description,
              grammar::tags, grammar::meta, grammar::meta_entry, grammar::status, grammar::alias, grammar::requirement,
              grammar::from_file, grammar::facts_file, grammar::file_number, grammar::file_text, grammar::each,
              grammar::binding, grammar::as_chat, grammar::at_site, grammar::select_part, grammar::token_part,
              grammar::fires_on, grammar::silent_on, grammar::fact, grammar::facts_from, grammar::remove,
              grammar::erase, grammar::class_list, grammar::using_method, grammar::pair, grammar::held_pair,
              grammar::measure, grammar::keep, grammar::severity, grammar::under, grammar::under_rule,
              grammar::under_edit, grammar::under_attack,
              // declarations
              grammar::use, grammar::model, grammar::prompts, grammar::feature, grammar::rule, grammar::edit,
              grammar::circuit, grammar::check, grammar::waive>> {};

}  // namespace proviso::dsl
