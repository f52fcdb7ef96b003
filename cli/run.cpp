#include <algorithm>
#include <cmath>
#include <iomanip>
#include <memory>
#include <nlohmann/json.hpp>
#include <ostream>
#include <sstream>

#include "cli/models.hpp"
#include "cli/output.hpp"
#include "dsl/check.hpp"
#include "runtime/bind.hpp"
#include "runtime/session.hpp"

namespace proviso::cli {

namespace {

using nlohmann::ordered_json;

struct Options {
  std::string model, prompt, ids;
  std::vector<std::string> rules;
  std::int64_t max_tokens = 32;
  std::int64_t top = 10;
  bool chat = false;
};

std::vector<std::int64_t> read_ids(const std::string& text, std::int64_t vocabulary) {
  std::vector<std::int64_t> ids;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    const std::string written = text.substr(begin, end - begin);
    const auto id = whole_number(written);
    if (!id || *id >= static_cast<std::uint64_t>(vocabulary)) {
      throw model::InputError("--ids: `" + written + "` is no token\n  help: ids run from 0 to " +
                              std::to_string(vocabulary - 1) + ", with commas between and no spaces");
    }
    ids.push_back(static_cast<std::int64_t>(*id));
    begin = end + 1;
  }
  return ids;
}

runtime::BoundPrompt prompt_of(const Options& options, const ModelFiles& model) {
  runtime::BoundPrompt prompt;
  if (!options.ids.empty()) {
    prompt.tokens = read_ids(options.ids, model.card.config.vocabulary);
    prompt.text = model.tokenizer->decode(prompt.tokens);
  } else if (options.chat) {
    prompt.text = model::apply_chat_template(*model.tokenizer, {{"user", options.prompt}});
    prompt.tokens = model.tokenizer->encode(prompt.text);
  } else {
    prompt.text = options.prompt;
    prompt.tokens = model.tokenizer->encode(prompt.text, /*add_special=*/true);
  }
  if (prompt.tokens.empty()) throw model::InputError("the prompt has no tokens\n  help: give --prompt a word at least");
  const auto taken = static_cast<std::int64_t>(prompt.tokens.size());
  if (taken + options.max_tokens > model.card.config.context) {
    throw model::InputError("the prompt takes " + std::to_string(taken) + " tokens and --max-tokens " +
                            std::to_string(options.max_tokens) + " more, and the model's context holds " +
                            std::to_string(model.card.config.context) +
                            "\n  help: shorten the prompt, or ask for fewer");
  }
  return prompt;
}

ordered_json next_tokens(const runtime::PositionEvidence& after, const model::Tokenizer& tokenizer) {
  ordered_json next = ordered_json::array();
  for (std::int64_t id : after.top) {
    const double log_probability = after.log_probability(id);
    const std::vector<std::int64_t> one = {id};
    next.push_back({{"id", id},
                    {"text", tokenizer.decode(one)},
                    {"probability", std::exp(log_probability)},
                    {"logit", after.tokens.at(id).logit},
                    {"log_probability", log_probability}});
  }
  return next;
}

ordered_json activity(const runtime::Plan& plan, const runtime::Evidence& evidence, runtime::StateId state,
                      const runtime::BoundRules& bound) {
  ordered_json listed = ordered_json::array();
  const auto& sentences = plan.states[state].sentences;
  for (std::size_t i = 0; i < sentences.size(); ++i) {
    // At the feature's own site, or else the first that the sentence acts at: positions are the prompt's.
    const auto& by_site = evidence.state(state).activity[i];
    const auto own = by_site.find(bound.feature_sites[sentences[i].sentence.feature]);
    const runtime::Activity sum = own != by_site.end() ? own->second
                                  : by_site.empty()    ? runtime::Activity{}
                                                       : by_site.begin()->second;
    listed.push_back({{"rule", sentences[i].rule},
                      {"feature", bound.feature_name(sentences[i].sentence.feature)},
                      {"positions", sum.positions},
                      {"active", sum.active},
                      {"mean", sum.positions > 0 ? sum.sum / static_cast<double>(sum.positions) : 0.0},
                      {"max", sum.max}});
  }
  const auto& replacements = plan.states[state].replacements;
  for (std::size_t i = 0; i < replacements.size(); ++i) {
    runtime::Activity sum;
    for (const auto& [site, activity] : evidence.state(state).activity[sentences.size() + i]) sum += activity;
    const auto& suppression = std::get<dsl::CircuitSuppression>(replacements[i].what);
    listed.push_back({{"rule", replacements[i].rule},
                      {"feature", "circuit " + bound.rules->circuits[suppression.circuit].name},
                      {"positions", sum.positions},
                      {"active", sum.active},
                      {"mean", sum.positions > 0 ? sum.sum / static_cast<double>(sum.positions) : 0.0},
                      {"max", sum.max}});
  }
  return listed;
}

std::string as_text(const ordered_json& result) {
  std::ostringstream out;
  out << result["prompt"].get<std::string>() << result["generated"].get<std::string>() << "\n\n";
  out << "   probability     logit       id  next token\n";
  for (const auto& token : result["next"]) {
    out << std::fixed << std::setw(14) << std::setprecision(6) << token["probability"].get<double>() << std::setw(10)
        << std::setprecision(3) << token["logit"].get<double>() << std::setw(9) << token["id"].get<std::int64_t>()
        << "  " << token["text"].dump(-1, ' ', false, ordered_json::error_handler_t::replace) << "\n";
  }
  for (const auto& rule : result["activity"]) {
    out << "rule " << rule["rule"].get<std::string>() << ": acted on " << rule["feature"].get<std::string>() << " at "
        << rule["active"] << " of " << rule["positions"] << " positions (activation mean " << std::setprecision(3)
        << rule["mean"].get<double>() << ", max " << rule["max"].get<double>() << ")\n";
  }
  return out.str();
}

/// The rule files bound to the model, or the model alone where none is named.
std::unique_ptr<BoundFiles> open(const Invocation& invocation, const Options& options) {
  if (!options.rules.empty()) return bind_rules(invocation, options.rules, options.model);
  auto opened = std::make_unique<BoundFiles>();
  opened->model = open_model(options.model);
  opened->bound =
      runtime::bind(std::make_shared<dsl::RuleSet>(), opened->model->card, opened->model->tokenizer, "").value;
  return opened;
}

int generate(const Invocation& invocation, const Options& options) {
  if (options.ids.empty() && options.prompt.empty()) {
    throw model::InputError("no prompt is given\n  help: --prompt TEXT, or --ids 1,2,3");
  }
  const auto off = passes_off(invocation);
  const auto opened = open(invocation, options);
  if (!opened->bound) return kInputAtFault;
  const auto& bound = *opened->bound;
  const auto& tokenizer = *opened->model->tokenizer;
  const auto stopped = [&](const std::vector<dsl::Diagnostic>& found) {
    if (!found.empty()) print_diagnostics(invocation, invocation.err, opened->files->sources, found);
    return stops(invocation, found);
  };
  const auto edits = bound.rules->own_edits();
  const auto rules = bound.rules->own_rules();
  if (stopped(dsl::contradictions(*bound.rules, rules))) return kInputAtFault;
  const auto prompt = prompt_of(options, *opened->model);

  const auto transformer = load_weights(invocation, *opened->model);
  {
    runtime::PlanBuilder all(bound);
    all.state(edits, rules);
    if (!choose_sites(invocation, *opened, all.plan().features, [&]() -> model::Transformer& { return *transformer; }))
      return kInputAtFault;
  }
  runtime::Session session(*transformer, bound, session_options(invocation));
  runtime::PlanBuilder prompt_alone(bound);
  auto state = prompt_alone.state(edits, rules);
  const runtime::GenerationKey key{state, prompt_alone.sequence(prompt), options.max_tokens, 1, 0};
  if (options.max_tokens > 0) prompt_alone.want_generation(key);
  const auto first = runtime::optimise(prompt_alone.take(), bound, off);
  if (stopped(session.build(first.features))) return kInputAtFault;
  session.prepare(first);
  solved(session, *bound.rules, edits);

  runtime::GeneratedText written;
  ordered_json acted;
  if (options.max_tokens > 0) {
    const auto evidence = session.carry_out(first);
    written = evidence.texts(key).front();
    acted = activity(first, evidence, state, bound);
  }
  runtime::PlanBuilder with_text(bound);
  state = with_text.state(edits, rules);
  const auto sequence = with_text.sequence(prompt, written.tokens);
  const auto last = static_cast<std::int64_t>(prompt.tokens.size() + written.tokens.size()) - 1;
  with_text.want_top(state, sequence, last, options.top);
  const auto second = runtime::optimise(with_text.take(), bound, off);
  const auto evidence = session.carry_out(second);
  if (options.max_tokens == 0) acted = activity(second, evidence, state, bound);

  const ordered_json result = {{"model", opened->model->card.name},
                               {"prompt", prompt.text},
                               {"tokens", prompt.tokens},
                               {"next", next_tokens(evidence.at(state, sequence).logits.at(last), tokenizer)},
                               {"generated", written.text},
                               {"activity", acted}};
  const OutputFormat format = invocation.options.output.value_or(OutputFormat::text);
  invocation.out << (format == OutputFormat::text ? as_text(result) : render_document(result, format));
  return kDone;
}

}  // namespace

void register_run(CLI::App& program, Invocation& invocation) {
  CLI::App* command = program.add_subcommand("run", "Generate with rules in force, and show what comes next");
  auto options = std::make_shared<Options>();
  add_model_option(*command, options->model);
  command
      ->add_option("--rules", options->rules,
                   "rule files whose rules and edits are in force; `-`, alone, is standard input")
      ->check(kNotEmpty)
      ->type_name("FILE");
  CLI::Option* prompt = command->add_option("--prompt", options->prompt, "the text to go on from");
  CLI::Option* ids = command->add_option("--ids", options->ids, "token ids instead of a text: 1,2,3")->type_name("IDS");
  command->add_option("--max-tokens", options->max_tokens, "tokens to generate; 0 gives only the next-token table")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 20))
      ->capture_default_str();
  command->add_option("--top", options->top, "rows of the next-token table")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 20))
      ->capture_default_str();
  CLI::Option* chat =
      command->add_flag("--chat", options->chat, "the prompt is a user's turn in the model's chat template");
  ids->excludes(prompt)->excludes(chat);
  add_common_options(*command, invocation.options);
  command->callback([options, &invocation] {
    invocation.action = [options, &invocation] { return generate(invocation, *options); };
  });
}

}  // namespace proviso::cli
