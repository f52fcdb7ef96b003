#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "dsl/convert.hpp"
#include "dsl/grammar.hpp"
#include "dsl/literals.hpp"

namespace proviso::dsl {

ast::Declaration Converter::declaration(const Node& node) {
  if (is<grammar::use>(node)) return use(node);
  if (is<grammar::model>(node)) return model(node);
  if (is<grammar::prompts>(node)) return prompts(node);
  if (is<grammar::feature>(node)) return feature(node);
  if (is<grammar::rule>(node)) return rule(node);
  if (is<grammar::edit>(node)) return edit(node);
  if (is<grammar::circuit>(node)) return circuit(node);
  if (is<grammar::check>(node)) return check(node);
  return waive(node);
}

void Converter::require(bool present, Span span, const std::string& declaration, std::string what, std::string cure) {
  if (present) return;
  report(Code::missing_statement, span, "`" + declaration + "` has no " + std::move(what), {std::move(cure)});
}

ast::Notes Converter::notes(const Node& declaration) {
  ast::Notes notes;
  const auto read = [&](const Node& note) {
    const Span place = span(note);
    if (is<grammar::title>(note)) {
      notes.title = string(note);
    } else if (is<grammar::description>(note)) {
      once(notes.description, ast::Description{string(only(note)), place}, place, "description");
    } else if (is<grammar::tags>(note)) {
      once(notes.tags, ast::Tags{strings(only(note)), place}, place, "tags");
    } else if (is<grammar::meta>(note)) {
      ast::Meta meta{{}, place};
      for (const auto& entry : note.children) {
        meta.entries.push_back({name(*entry->children[0]), string(*entry->children[1]), span(*entry)});
        const auto same = [&](const ast::MetaEntry& other) { return other.key == meta.entries.back().key; };
        if (std::any_of(meta.entries.begin(), meta.entries.end() - 1, same)) {
          report(Code::duplicate_statement, span(*entry),
                 "`" + meta.entries.back().key.text + "` stands twice in one `meta`", {"keep one of them"});
        }
      }
      once(notes.meta, std::move(meta), place, "meta");
    } else if (is<grammar::status>(note)) {
      static constexpr std::array<std::pair<std::string_view, Annotations::Status>, 3> kWords = {
          {{"stable", Annotations::Status::stable},
           {"experimental", Annotations::Status::experimental},
           {"deprecated", Annotations::Status::deprecated}}};
      const Node& word = only(note);
      const auto found =
          std::find_if(kWords.begin(), kWords.end(), [&](const auto& w) { return w.first == word.string_view(); });
      if (found == kWords.end()) {
        std::vector<std::string> words;
        for (const auto& [known, status] : kWords) words.emplace_back(known);
        report(Code::invalid_word, span(word), "`" + word.string() + "` is no status",
               {"a status is stable, experimental or deprecated"})
            .fixes = spelling_fix(span(word), word.string_view(), words);
      } else {
        once(notes.status, ast::StatusLine{found->second, place}, place, "status");
      }
    }
  };
  for (const auto& each : declaration.children) {
    read(*each);
    // The options of a prompt file and the notes of its declaration share one pair of braces.
    if (is<grammar::from_file>(*each)) {
      for (const auto& inner : each->children) read(*inner);
    }
  }
  return notes;
}

ast::Use Converter::use(const Node& node) {
  ast::Use out;
  if (const Node* library = child<grammar::library_name>(node)) {
    constexpr std::size_t kPrefix = 4;  // "std/"
    out.what = ast::LibraryName{library->string().substr(kPrefix), span(*library)};
  } else {
    out.what = string(*child<grammar::text>(node));
  }
  if (const Node* alias = child<grammar::alias>(node)) out.alias = name(only(*alias));
  out.notes = notes(node);
  out.span = span(node);
  return out;
}

ast::Model Converter::model(const Node& node) {
  ast::Model out;
  out.notes = notes(node);
  out.span = span(node);
  for (const Node* each : children<grammar::requirement>(node)) {
    const Node& value = *each->children[1];
    ast::Requirement requirement{name(*each->children[0]), {}, span(*each)};
    if (is<grammar::number>(value)) {
      requirement.value = number(value);
    } else if (is<grammar::text>(value)) {
      requirement.value = string(value);
    } else if (is<grammar::hash>(value)) {
      requirement.value = ast::String{value.string(), span(value)};
    } else {
      requirement.value = name(value);
    }
    for (const ast::Requirement& other : out.requirements) {
      if (other.key == requirement.key) {
        report(Code::duplicate_statement, requirement.span,
               "`" + requirement.key.text + "` stands twice in one declaration", {"keep one of them"});
      }
    }
    out.requirements.push_back(std::move(requirement));
  }
  return out;
}

ast::FromFile Converter::from_file(const Node& node) {
  ast::FromFile out;
  out.path = string(only(node));
  out.span = span(node);
  for (const Node* option : children<grammar::file_number, grammar::file_text>(node)) {
    const Node& key = *option->children[0];
    const Node& value = *option->children[1];
    if (is<grammar::file_number>(*option)) {
      once(is<grammar::kw_take>(key) ? out.take : out.seed, number(value), span(*option), key.string_view());
    } else {
      auto& slot = is<grammar::kw_field>(key) ? out.field : is<grammar::kw_answer>(key) ? out.answer : out.cluster;
      once(slot, string(value), span(*option), key.string_view());
    }
  }
  return out;
}

ast::Each Converter::each(const Node& node) {
  ast::Each out;
  out.span = span(node);
  std::vector<std::string> names;
  const auto read_template = [&](const Node& text) {
    ast::Template read = decode_template(text.string_view(), span(text), Slots::named, diagnostics_);
    for (const auto& part : read.parts) {
      const auto* slot = std::get_if<ast::Slot>(&part);
      if (!slot || std::find(names.begin(), names.end(), slot->name.text) != names.end()) continue;
      const std::string name = slot->name.text;
      auto fixes = spelling_fix(slot->name.span, name, names);
      for (Fix& fix : fixes) fix.replacement = "{" + fix.replacement + "}";  // a slot's place includes its braces
      report(Code::template_slot, slot->name.span, "`{" + name + "}` names nothing that this `each` binds",
             {fixes.empty() ? "a brace itself is `{{` or `}}`" : "did you mean `" + fixes.front().replacement + "`?"})
          .fixes = std::move(fixes);
    }
    return read;
  };
  bool text_read = false;
  for (const auto& item : node.children) {
    if (is<grammar::binding>(*item)) {
      ast::Each::Binding binding{name(*item->children[0]), strings(*item->children[1]), span(*item->children[1])};
      if (std::find(names.begin(), names.end(), binding.name.text) != names.end()) {
        report(Code::duplicate_statement, binding.name.span, "`" + binding.name.text + "` is bound twice in one `each`",
               {"give it another name"});
      }
      names.push_back(binding.name.text);
      out.bindings.push_back(std::move(binding));
    } else if (is<grammar::string_list>(*item)) {
      for (const auto& answer : item->children) out.answers.push_back(read_template(*answer));
    } else if (text_read) {
      out.answers.push_back(read_template(*item));
    } else {
      out.text = read_template(*item);
      text_read = true;
    }
  }
  return out;
}

ast::Prompts Converter::prompts(const Node& node) {
  ast::Prompts out;
  out.name = name(*child<grammar::own_name>(node));
  if (const Node* chat = child<grammar::as_chat>(node)) {
    out.chat = ast::AsChat{{}, span(*chat)};
    if (!chat->children.empty()) out.chat->system = string(only(*chat));
  }
  const Node& source = *child<grammar::prompt_list, grammar::from_file, grammar::each>(node);
  if (is<grammar::prompt_list>(source)) {
    out.source = prompt_list(source);
  } else if (is<grammar::from_file>(source)) {
    out.source = from_file(source);
  } else {
    out.source = each(source);
  }
  out.notes = notes(node);
  out.span = span(node);
  return out;
}

ast::Feature Converter::feature(const Node& node) {
  ast::Feature out;
  out.name = name(*child<grammar::own_name>(node));
  out.constructor = call(*child<grammar::constructor>(node));
  out.span = span(node);
  for (const Node* part : children<grammar::at_site, grammar::select_part, grammar::token_part>(node)) {
    if (is<grammar::select_part>(*part)) {
      ast::Select select{{}, span(*part)};
      if (!part->children.empty()) select.on = {prompts_ref(*part->children[0]), prompts_ref(*part->children[1])};
      once(out.select, std::move(select), span(*part), "select");
      continue;
    }
    const Node& what = only(*part);
    if (is<grammar::at_site>(*part)) {
      once(out.site, site(what), span(*part), "at");
      continue;
    }
    ast::Token token{{}, span(*part)};
    if (is<grammar::all_of_prompt>(what)) {
      token.choice.kind = TokenChoice::Kind::all;
    } else if (is<grammar::number>(what)) {
      token.choice.kind = TokenChoice::Kind::index;
      const auto index = number(what).integer();
      if (!index)
        report(Code::syntax, span(what), "a token is counted in whole numbers, found `" + what.string() + "`",
               {"`token 0` is the first, `token -1` the last"});
      token.choice.index = index.value_or(0);
    }
    once(out.token, token, span(*part), "token");
  }
  // A latent's site is its autoencoder's, and a subspace's can be its features'.
  require(out.site || out.constructor.name.text == "latent" || out.constructor.name.text == "subspace", out.name.span,
          out.name.text, "site to be read at", "write `at` and a site, for example `at resid_post[12]`");
  out.notes = notes(node);
  return out;
}

ast::Rule Converter::rule(const Node& node) {
  ast::Rule out;
  out.name = name(*child<grammar::own_name>(node));
  out.notes = notes(node);
  out.span = span(node);
  for (const auto& statement : node.children) {
    if (is<grammar::intervention>(*statement)) {
      out.interventions.push_back(intervention(*statement));
    } else if (is<grammar::fires_on, grammar::silent_on>(*statement)) {
      ast::Example example{is<grammar::fires_on>(*statement), {}, span(*statement)};
      for (const auto& prompts : statement->children) example.prompts.push_back(prompts_ref(*prompts));
      out.examples.push_back(std::move(example));
    }
  }
  return out;
}

ast::Fact Converter::fact(const Node& node) {
  ast::Fact out;
  out.span = span(node);
  out.subject = string(*node.children.front());
  out.in = decode_template(node.children[1]->string_view(), span(*node.children[1]), Slots::bare, diagnostics_);
  if (node.children.size() == 4) out.from = string(*node.children[2]);
  out.to = string(*node.children.back());
  return out;
}

ast::Edit Converter::edit(const Node& node) {
  ast::Edit out;
  out.name = name(*child<grammar::own_name>(node));
  out.notes = notes(node);
  out.span = span(node);
  for (const auto& each : node.children) {
    const Node& statement = *each;
    const Span place = span(statement);
    if (is<grammar::fact>(statement)) {
      out.changes.emplace_back(fact(statement));
    } else if (is<grammar::facts_from>(statement)) {
      out.changes.emplace_back(ast::FactsFrom{from_file(only(statement)), place});
    } else if (is<grammar::remove>(statement)) {
      const Node& removed = *child<grammar::feature_name, grammar::circuit_name>(statement);
      out.changes.emplace_back(ast::Remove{name(removed), sites(statement), place, is<grammar::circuit_name>(removed)});
    } else if (is<grammar::erase>(statement)) {
      ast::Erase erase{{}, sites(statement), place};
      const Node& labels = only(statement);
      if (is<grammar::class_list>(labels)) {
        std::vector<ast::PromptsRef> classes;
        for (const auto& set : labels.children) classes.push_back(prompts_ref(*set));
        erase.labels = std::move(classes);
      } else {
        erase.labels = prompts_ref(labels);
      }
      out.changes.emplace_back(std::move(erase));
    } else if (is<grammar::using_method>(statement)) {
      once(out.method, ast::Using{call(only(statement)), place}, place, "using");
    } else if (is<grammar::expectation>(statement)) {
      out.expectations.push_back(expectation(statement));
    }
  }
  const Span place = out.name.span;
  require(!out.changes.empty(), place, out.name.text, "change to make",
          "write `fact`, `facts from`, `remove` or `erase`");
  require(out.method.has_value(), place, out.name.text, "method",
          "write `using` and a method, for example `using rome(layer: 5)`");
  return out;
}

std::variant<ast::String, ast::Name, ast::PromptList> Converter::pair_side(const Node& node) {
  if (is<grammar::text>(node)) return string(node);
  if (is<grammar::prompt_list>(node)) return prompt_list(node);
  return name(node);
}

ast::Circuit Converter::circuit(const Node& node) {
  ast::Circuit out;
  out.name = name(*child<grammar::own_name>(node));
  out.notes = notes(node);
  out.span = span(node);
  for (const auto& each : node.children) {
    const Node& statement = *each;
    const Span place = span(statement);
    if (is<grammar::pair, grammar::held_pair>(statement)) {
      out.pairs.push_back({pair_side(*statement.children[0]), pair_side(*statement.children[1]), place,
                           is<grammar::held_pair>(statement)});
    } else if (is<grammar::measure>(statement)) {
      once(out.measure, ast::Measure{call(only(statement)), place}, place, "measure");
    } else if (is<grammar::using_method>(statement)) {
      once(out.method, ast::Using{call(only(statement)), place}, place, "using");
    } else if (is<grammar::keep>(statement)) {
      once(out.keep, ast::Keep{number(*statement.children[0]), name(*statement.children[1]), place}, place, "keep");
    }
  }
  const Span place = out.name.span;
  const bool found_on_any =
      std::any_of(out.pairs.begin(), out.pairs.end(), [](const auto& pair) { return !pair.held; });
  require(found_on_any, place, out.name.text, "pair of prompts", "write `clean \"…\" corrupt \"…\"`");
  require(out.measure.has_value(), place, out.name.text, "measure",
          "write `measure` and a metric, for example `measure logit_diff(\" a\", \" b\")`");
  require(out.method.has_value(), place, out.name.text, "method",
          "write `using` and a method, for example `using eap_ig(steps: 5)`");
  return out;
}

ast::Expectation Converter::expectation(const Node& node) {
  ast::Expectation out;
  out.span = span(node);
  out.metric = call(*child<grammar::metric>(node));
  out.op = compare_from(child<grammar::compare>(node)->string_view());
  out.bound = number(*child<grammar::bound>(node));
  for (const auto& part : node.children) {
    if (is<grammar::relative>(*part)) {
      if (out.relative) report(Code::duplicate_statement, span(*part), "`relative` stands twice", {"keep one of them"});
      out.relative = true;
    } else if (is<grammar::beyond_control>(*part)) {
      if (out.beyond_control)
        report(Code::duplicate_statement, span(*part), "`beyond control` stands twice", {"keep one of them"});
      out.beyond_control = true;
    } else if (is<grammar::confidence>(*part)) {
      out.confidence = number(only(*part));
    } else if (is<grammar::across>(*part)) {
      for (const auto& sweep : part->children) out.across.push_back(call(*sweep));
    }
  }
  return out;
}

ast::Under Converter::under(const Node& node) {
  ast::Under out;
  out.span = span(node);
  const Node& what = only(node);
  out.kind = is<grammar::under_rule>(what)   ? ast::Under::Kind::rule
             : is<grammar::under_edit>(what) ? ast::Under::Kind::edit
                                             : ast::Under::Kind::attack;
  for (const auto& each : what.children) {
    if (out.kind == ast::Under::Kind::attack) {
      out.attacks.push_back(call(*each));
    } else {
      out.names.push_back(name(*each));
    }
  }
  return out;
}

ast::Check Converter::check(const Node& node) {
  ast::Check out;
  out.name = name(*child<grammar::own_name>(node));
  out.notes = notes(node);
  out.span = span(node);
  for (const auto& each : node.children) {
    const Node& statement = *each;
    if (is<grammar::severity>(statement)) {
      static constexpr CheckSeverity kAll[] = {CheckSeverity::info, CheckSeverity::minor, CheckSeverity::major,
                                               CheckSeverity::critical};
      const Node& word = only(statement);
      const auto found = std::find_if(std::begin(kAll), std::end(kAll),
                                      [&](CheckSeverity s) { return severity_name(s) == word.string_view(); });
      if (found == std::end(kAll)) {
        std::vector<std::string> words;
        for (const CheckSeverity severity : kAll) words.emplace_back(severity_name(severity));
        report(Code::invalid_word, span(word), "`" + word.string() + "` is no severity",
               {"a severity is info, minor, major or critical"})
            .fixes = spelling_fix(span(word), word.string_view(), words);
      } else {
        once(out.severity, ast::SeverityLine{*found, span(statement)}, span(statement), "severity");
      }
    } else if (is<grammar::under>(statement)) {
      out.under.push_back(under(statement));
    } else if (is<grammar::expectation>(statement)) {
      out.expectations.push_back(expectation(statement));
    }
  }
  require(!out.expectations.empty(), out.name.span, out.name.text, "expectation", "write `expect METRIC OP NUMBER`");
  return out;
}

ast::Waive Converter::waive(const Node& node) {
  ast::Waive out;
  out.check = name(*child<grammar::name>(node));
  const Node& until = *child<grammar::date>(node);
  out.until = date(until);
  out.until_span = span(until);
  const auto texts = children<grammar::text>(node);
  out.by = string(*texts[0]);
  out.because = string(*texts[1]);
  out.notes = notes(node);
  out.span = span(node);
  return out;
}

}  // namespace proviso::dsl
