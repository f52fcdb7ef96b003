#pragma once

// The grammar of a rule file, as PEGTL rules; nothing but grammar (messages, selection and conversion
// are in parse.cpp). Private to `parse` and to the test that analyses it.
//
// Layout (blanks, line breaks, comments) stands between tokens and belongs to none of them, so that a
// rule's match begins and ends with a token: `then<R>` is layout and R, `need<R>` is layout and an R
// whose absence is an error. Only one thing depends on line breaks: they separate the items of a list.
// No lookahead goes beyond two tokens, so reading takes time linear in the text.

#include <tao/pegtl.hpp>

namespace proviso::dsl::grammar {

using namespace tao::pegtl;  // NOLINT(google-build-using-namespace): a grammar reads as PEGTL's own do

// ---- layout ----------------------------------------------------------------------------------

struct comment : seq<one<'#'>, star<not_one<'\n'>>> {};
struct inline_blank : one<' ', '\t', '\r'> {};
struct layout : star<sor<inline_blank, one<'\n'>, comment>> {};
struct line_break : seq<star<inline_blank>, opt<comment>, one<'\n'>, layout> {};

template <class... Rules>
struct then : seq<seq<layout, Rules>...> {};
template <class... Rules>
struct need : seq<seq<layout, must<Rules>>...> {};

// ---- words -----------------------------------------------------------------------------------

#define PROVISO_PHRASE_WORD(word) \
  struct kw_##word : TAO_PEGTL_KEYWORD(#word) {};
#define PROVISO_WORD(word, opens) PROVISO_PHRASE_WORD(word)
#include "dsl/words.def"

struct reserved : sor<failure
#define PROVISO_WORD(word, opens) , kw_##word
#include "dsl/words.def"
                      > {
};

struct declaration_word : sor<failure
#define PROVISO_IF_declaration(word) , kw_##word
#define PROVISO_IF_nothing(word)
#define PROVISO_WORD(word, opens) PROVISO_IF_##opens(word)
#include "dsl/words.def"
#undef PROVISO_IF_nothing
#undef PROVISO_IF_declaration
                              > {
};

/// Any word, reserved or not: a label, a key of `meta`, a status.
struct word : identifier {};
/// A name as declared: `anger`.
struct own_name : seq<not_at<reserved>, identifier> {};
/// A name as used: `anger`, `pack.anger`.
struct name : seq<own_name, star<one<'.'>, own_name>> {};
/// Looked at only, so that it leaves no node in the tree.
struct name_ahead : seq<not_at<reserved>, identifier, star<one<'.'>, identifier>> {};

// ---- literals --------------------------------------------------------------------------------

struct string_close : one<'"'> {};
struct text : seq<one<'"'>, star<sor<seq<one<'\\'>, not_one<'\n', '\r'>>, not_one<'"', '\\', '\n', '\r'>>>,
                  must<string_close>> {};

struct regex_close : one<'/'> {};
struct regex : seq<one<'/'>, star<sor<seq<one<'\\'>, not_one<'\n', '\r'>>, not_one<'/', '\\', '\n', '\r'>>>,
                   must<regex_close>, star<identifier_other>> {};

struct number_end : not_at<sor<identifier_other, one<'%'>, seq<one<'.'>, not_at<one<'.'>>>>> {};
struct number : seq<opt<one<'-'>>, plus<digit>, opt<one<'.'>, plus<digit>>, opt<one<'e'>, opt<one<'-'>>, plus<digit>>,
                    opt<one<'%'>>, must<number_end>> {};

struct date : seq<rep<4, digit>, one<'-'>, rep<2, digit>, one<'-'>, rep<2, digit>, not_at<identifier_other>> {};
struct hash : seq<rep<64, xdigit>, not_at<identifier_other>> {};

// ---- lists -----------------------------------------------------------------------------------

struct comma : one<','> {};
struct separator : sor<seq<layout, comma, layout>, line_break> {};
struct list_close : one<']'> {};

template <class... Alternatives>
struct list_of : seq<one<'['>, layout, opt<sor<Alternatives...>, star<separator, sor<Alternatives...>>, opt<separator>>,
                     need<list_close>> {};

/// One or more, with commas between: `a, b`.
template <class Item>
struct commas : seq<must<Item>, star<then<comma>, need<Item>>> {};

// ---- indices and sites -----------------------------------------------------------------------

struct range_end : number {};
struct index_range : seq<number, opt<two<'.'>, must<range_end>>> {};
struct everything : one<'*'> {};
struct layer_list : sor<seq<one<'['>, layout, everything, need<list_close>>, list_of<index_range>> {};
struct head_list : sor<everything, list_of<index_range>, seq<index_range, star<then<comma>, layout, index_range>>> {};

/// `resid_post`, `blocks.14.attn.hook_z`: what it names is looked up when it is converted.
struct site_word : seq<not_at<reserved>, identifier, star<one<'.'>, plus<identifier_other>>> {};
struct layers_part : seq<star<inline_blank>, layer_list> {};
struct heads_part : seq<kw_head, need<head_list>> {};
struct site : seq<site_word, opt<layers_part>, opt<then<heads_part>>> {};
struct site_list : list_of<site> {};

// ---- prompts ---------------------------------------------------------------------------------

struct string_list : list_of<text> {};
struct answers : sor<text, string_list> {};
struct arrow : string<'-', '>'> {};
struct prompt_item : seq<text, opt<then<arrow>, need<answers>>> {};
struct prompt_list : list_of<prompt_item> {};
struct prompts_ref : sor<prompt_list, name> {};

// ---- calls -----------------------------------------------------------------------------------

struct value;
struct call;

struct label : identifier {};
struct colon : one<':'> {};
struct call_open : seq<star<inline_blank>, one<'('>> {};
struct call_close : one<')'> {};
struct argument : sor<seq<at<identifier, layout, colon>, label, then<colon>, need<value>>, value> {};
struct arguments
    : seq<call_open, layout, opt<argument, star<then<comma>, layout, argument>, opt<then<comma>>>, need<call_close>> {};
struct call : seq<at<name_ahead, call_open>, name, arguments> {};
/// A call whose parentheses may be left out: `efficacy`, `using rome`.
struct loose_call : seq<name, opt<arguments>> {};

// ---- conditions ------------------------------------------------------------------------------

struct compare : sor<string<'<', '='>, string<'>', '='>, string<'=', '='>, string<'!', '='>, one<'<', '>'>> {};
struct operand : sor<number, kw_position, call, name> {};
struct comparison : seq<operand, need<compare, operand>, star<then<compare>, need<operand>>> {};

struct condition;
struct condition_close : one<')'> {};
struct group : seq<one<'('>, need<condition, condition_close>> {};
struct prompt_matches : seq<kw_prompt, need<kw_matches, regex>> {};
struct token_text : seq<kw_is, need<text>> {};
struct token_list : seq<kw_in, need<string_list>> {};
struct token_test : sor<token_text, token_list> {};
struct token_in : seq<kw_token, need<token_test>> {};
struct primary : sor<group, prompt_matches, token_in, kw_generated, comparison> {};
struct unary;
struct negation : seq<kw_not, need<unary>> {};
struct any_position : seq<kw_any, need<unary>> {};
struct last_token : seq<kw_last, need<unary>> {};
struct unary : sor<negation, any_position, last_token, primary> {};
struct conjunction : seq<unary, star<then<kw_and>, need<unary>>> {};
struct condition : seq<conjunction, star<then<kw_or>, need<conjunction>>> {};

// ---- interventions ---------------------------------------------------------------------------

struct operation_ahead : sor<kw_suppress, kw_amplify, kw_clamp, kw_steer, kw_cap> {};
struct operation : operation_ahead {};
struct at_a_number : seq<at<kw_at, layout, sor<digit, one<'-'>>>, kw_at> {};
struct preposition : sor<kw_by, kw_to, at_a_number> {};
struct amount : seq<preposition, need<number>> {};
struct feature_name : name {};
struct circuit_name : name {};
struct circuit_ref : seq<kw_circuit, need<circuit_name>> {};
struct acted_on : sor<circuit_ref, feature_name> {};
struct when_part : seq<kw_when, need<condition>> {};
struct intervention_head : seq<operation, need<acted_on>, opt<then<amount>>> {};

struct bare_sites : commas<site> {};
struct sites : sor<site_list, bare_sites> {};
struct at_sites : seq<kw_at, need<sites>> {};
struct intervention : seq<intervention_head, opt<then<at_sites>>, opt<then<when_part>>> {};

/// Inside parentheses a comma ends the argument: several sites stand in brackets.
struct inner_sites : sor<site_list, site> {};
struct at_inner_sites : seq<kw_at, need<inner_sites>> {};
struct inner_intervention : seq<at<operation_ahead, layout, identifier_first>, intervention_head,
                                opt<then<at_inner_sites>>, opt<then<when_part>>> {};

/// `patch z[9] head 3 from P`, `patch feature anger from P`: the change of an effect.
struct feature_ref : seq<kw_feature, need<feature_name>> {};
struct patched : sor<feature_ref, inner_sites> {};
struct patch_source : sor<call, prompts_ref> {};
struct patch : seq<at<kw_patch, layout, sor<one<'['>, identifier_first>>, kw_patch,
                   need<patched, kw_from, patch_source>, opt<then<when_part>>> {};

// ---- values ----------------------------------------------------------------------------------

struct rule_ref : seq<kw_rule, need<name>> {};
struct edit_ref : seq<kw_edit, need<name>> {};
struct range : seq<at<plus<digit>, two<'.'>>, index_range> {};
struct minus : one<'-'> {};
struct difference : seq<text, opt<then<minus>, need<text>>> {};
struct value_list : list_of<prompt_item, index_range> {};
struct compared : seq<operand, star<then<compare>, need<operand>>> {};
struct value
    : sor<rule_ref, edit_ref, patch, inner_intervention, range, everything, difference, regex, value_list, compared> {};

// ---- expectations ----------------------------------------------------------------------------

struct metric : loose_call {};
struct bound : number {};
struct relative : kw_relative {};
struct beyond_control : seq<kw_beyond, need<kw_control>> {};
struct confidence : seq<kw_at, need<number, kw_confidence>> {};
struct across : seq<kw_across, layout, commas<loose_call>> {};
struct expectation : seq<kw_expect, need<metric, compare, bound>, star<then<sor<relative, beyond_control>>>,
                         opt<then<confidence>>, opt<then<across>>> {};

// ---- notes -----------------------------------------------------------------------------------

struct block_open : one<'{'> {};

struct title : text {};
struct description : seq<kw_description, need<text>> {};
struct tags : seq<kw_tags, need<string_list>> {};
struct meta_entry : seq<word, need<text>> {};
struct meta_close : one<'}'> {};
struct meta : seq<kw_meta, need<block_open>, star<then<meta_entry>>, need<meta_close>> {};
struct status : seq<kw_status, need<word>> {};
struct note : sor<description, tags, meta, status> {};
struct notes_close : one<'}'> {};
/// After a declaration without a body: `{ tags ["x"] }`, or the same without braces.
struct notes_tail : sor<seq<one<'{'>, star<then<note>>, need<notes_close>>, plus<layout, note>> {};

template <class Close, class... Statements>
struct body : seq<need<block_open>, star<then<sor<Statements..., note>>>, need<Close>> {};

// ---- declarations ----------------------------------------------------------------------------

struct equals : one<'='> {};
template <class Word>
struct heading : seq<Word, need<own_name>, opt<then<title>>> {};

struct library_name : seq<string<'s', 't', 'd', '/'>, identifier, star<one<'/'>, identifier>> {};
struct used_file : sor<text, library_name> {};
struct alias : seq<kw_as, need<own_name>> {};
struct use : seq<kw_use, need<used_file>, opt<then<alias>>, opt<then<title>>, opt<then<notes_tail>>> {};

struct requirement_key : sor<kw_family, kw_layers, kw_width, kw_sha256> {};
struct requirement_value : sor<hash, number, text, own_name> {};
struct requirement : seq<requirement_key, need<requirement_value>> {};
struct model_close : one<'}'> {};
struct model : seq<kw_model, opt<then<title>>, body<model_close, requirement>> {};

struct file_number : seq<sor<kw_take, kw_seed>, need<number>> {};
struct file_text : seq<sor<kw_field, kw_answer, kw_cluster>, need<text>> {};
struct file_close : one<'}'> {};
template <class... Statements>
struct file_options : seq<one<'{'>, star<then<sor<file_number, file_text, Statements...>>>, need<file_close>> {};
struct from_file : seq<kw_from, need<text>, opt<then<file_options<note>>>> {};
struct facts_file : seq<kw_from, need<text>, opt<then<file_options<>>>> {};

struct binding : seq<own_name, need<kw_in, string_list>> {};
struct each : seq<kw_each, layout, commas<binding>, need<text>, opt<then<arrow>, need<answers>>> {};
struct chat_system : seq<one<'('>, need<kw_system, colon, text, call_close>> {};
struct as_chat : seq<kw_as, need<kw_chat>, opt<then<chat_system>>> {};
struct prompts_source : sor<prompt_list, from_file, each> {};
struct prompts : seq<heading<kw_prompts>, opt<then<as_chat>>, need<equals, prompts_source>, opt<then<notes_tail>>> {};

struct constructor : call {};
struct at_site : seq<kw_at, need<site>> {};
struct last_of_prompt : kw_last {};
struct all_of_prompt : kw_all {};
struct token_choice : sor<last_of_prompt, all_of_prompt, number> {};
struct token_part : seq<kw_token, need<token_choice>> {};
struct select_open : one<'('> {};
struct select_comma : one<','> {};
struct select_on : seq<kw_on, need<select_open, prompts_ref, select_comma, prompts_ref, call_close>> {};
struct select_part : seq<kw_select, need<kw_best>, opt<then<select_on>>> {};
struct feature : seq<heading<kw_feature>, need<equals, constructor>, star<then<sor<at_site, select_part, token_part>>>,
                     opt<then<notes_tail>>> {};

struct fires_on : seq<kw_fires, need<kw_on>, layout, commas<prompts_ref>> {};
struct silent_on : seq<kw_silent, need<kw_on>, layout, commas<prompts_ref>> {};
struct rule_close : one<'}'> {};
struct rule : seq<heading<kw_rule>, body<rule_close, intervention, fires_on, silent_on>> {};

struct fact : seq<kw_fact, need<text, kw_in, text>, opt<then<kw_from>, need<text>>, need<kw_to, text>> {};
struct facts_from : seq<kw_facts, need<facts_file>> {};
struct removed : sor<circuit_ref, seq<feature_name, need<kw_at, sites>>> {};
struct remove : seq<kw_remove, need<removed>> {};
struct class_list : seq<at<one<'['>, layout, sor<name_ahead, one<'['>>>, list_of<prompts_ref>> {};
struct labels : sor<class_list, prompts_ref> {};
struct erase : seq<kw_erase, need<labels>, opt<then<at_sites>>> {};
struct using_method : seq<kw_using, need<loose_call>> {};
struct edit_close : one<'}'> {};
struct edit : seq<heading<kw_edit>, body<edit_close, facts_from, fact, remove, erase, using_method, expectation>> {};

struct pair_side : sor<text, prompt_list, name> {};
struct pair : seq<kw_clean, need<pair_side, kw_corrupt, pair_side>> {};
struct held_pair : seq<kw_held, need<kw_clean, pair_side, kw_corrupt, pair_side>> {};
struct measure : seq<kw_measure, need<loose_call>> {};
struct keep_unit : sor<kw_edges, kw_nodes> {};
struct keep : seq<kw_keep, need<number, keep_unit>> {};
struct circuit_close : one<'}'> {};
struct circuit : seq<heading<kw_circuit>, body<circuit_close, pair, held_pair, measure, using_method, keep>> {};

struct severity : seq<kw_severity, need<word>> {};
struct under_rule : seq<kw_rule, layout, commas<name>> {};
struct under_edit : seq<kw_edit, layout, commas<name>> {};
struct under_attack : seq<kw_attack, layout, commas<loose_call>> {};
struct under_what : sor<under_rule, under_edit, under_attack> {};
struct under : seq<kw_under, need<under_what>> {};
struct check_close : one<'}'> {};
struct check : seq<heading<kw_check>, body<check_close, severity, under, expectation>> {};

struct waive : seq<kw_waive, need<name>, opt<then<title>>, need<kw_until, date, kw_by, text, kw_because, text>,
                   opt<then<notes_tail>>> {};

struct declaration : sor<use, model, prompts, feature, rule, edit, circuit, check, waive> {};

/// A whole file without an error; `parse` reads one declaration at a time, to resume after errors.
struct file : must<layout, star<declaration, layout>, eof> {};

/// A site alone: `--at resid_post[18]`.
struct lone_site : seq<layout, site, layout, eof> {};

}  // namespace proviso::dsl::grammar
