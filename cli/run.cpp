#include <algorithm>
#include <cmath>
#include <iomanip>
#include <memory>
#include <nlohmann/json.hpp>
#include <ostream>
#include <sstream>
#include <utility>

#include "cli/models.hpp"
#include "cli/output.hpp"
#include "cli/progress.hpp"
#include "dsl/check.hpp"
#include "runtime/bind.hpp"
#include "runtime/session.hpp"

namespace proviso::cli {

namespace {

using nlohmann::ordered_json;

struct Options {
  std::string model, prompt;
  std::vector<std::string> rules;
  std::vector<std::int64_t> ids;
  std::int64_t max_tokens = 32;
  std::int64_t top = 10;
  bool chat = false;
};

runtime::BoundPrompt prompt_of(const Options& options, const ModelFiles& model) {
  runtime::BoundPrompt prompt;
  if (!options.ids.empty()) {
    for (std::int64_t id : options.ids) {
      if (id >= 0 && id < model.card.config.vocabulary) continue;
      throw model::InputError("--ids: " + std::to_string(id) + " is no token\n  help: ids run from 0 to " +
                              std::to_string(model.card.config.vocabulary - 1));
    }
    prompt.tokens = options.ids;
    prompt.text = model.tokenizer->decode(options.ids);
  } else if (options.chat) {
    prompt.text = model::apply_chat_template(*model.tokenizer, {{"user", options.prompt}});
    prompt.tokens = model.tokenizer->encode(prompt.text);
  } else {
    prompt.text = options.prompt;
    prompt.tokens = model.tokenizer->encode(prompt.text, /*add_special=*/true);
  }
  if (prompt.tokens.empty()) throw model::InputError("the prompt has no tokens\n  help: give --prompt a word at least");
  if (static_cast<std::int64_t>(prompt.tokens.size()) > model.card.config.context) {
    throw model::InputError("the prompt takes " + std::to_string(prompt.tokens.size()) +
                            " tokens, and the model's context holds " + std::to_string(model.card.config.context) +
                            "\n  help: shorten it");
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

struct Answered {
  runtime::Plan plan;
  runtime::Evidence evidence;
};

ordered_json activity(const Answered& answered, runtime::StateId state, const runtime::BoundRules& bound) {
  ordered_json listed = ordered_json::array();
  const auto& sentences = answered.plan.states[state].sentences;
  for (std::size_t i = 0; i < sentences.size(); ++i) {
    runtime::Activity sum;
    for (const auto& [site, at_site] : answered.evidence.state(state).activity[i]) sum += at_site;
    listed.push_back({{"rule", sentences[i].rule},
                      {"feature", bound.feature_name(sentences[i].sentence.feature)},
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
        << std::setprecision(3) << token["logit"].get<double>() << std::setw(9) << token["id"].get<std::int64_t>() << "  "
        << token["text"].dump(-1, ' ', false, ordered_json::error_handler_t::replace) << "\n";
  }
  for (const auto& rule : result["activity"]) {
    out << "rule " << rule["rule"].get<std::string>() << ": acted on " << rule["feature"].get<std::string>() << " at "
        << rule["active"] << " of " << rule["positions"] << " positions (activation mean " << std::setprecision(3)
        << rule["mean"].get<double>() << ", max " << rule["max"].get<double>() << ")\n";
  }
  return out.str();
}

int generate(const Invocation& invocation, const Options& options) {
  if (options.ids.empty() && options.prompt.empty()) {
    throw model::InputError("no prompt is given\n  help: --prompt TEXT, or --ids 1,2,3");
  }
  std::unique_ptr<BoundFiles> opened;
  if (options.rules.empty()) {
    opened = std::make_unique<BoundFiles>();
    opened->model = open_model(options.model);
    opened->bound = runtime::bind(std::make_shared<dsl::RuleSet>(), opened->model->card, opened->model->tokenizer, "").value;
  } else {
    opened = bind_rules(invocation, options.rules, options.model);
  }
  if (!opened->bound) return kInputAtFault;
  const auto& bound = *opened->bound;

  std::vector<dsl::RuleId> in_force;
  for (dsl::RuleId id = 0; id < bound.rules->rules.size(); ++id) {
    if (!bound.rules->rules[id].imported) in_force.push_back(id);
  }
  if (const auto clashes = dsl::contradictions(*bound.rules, in_force); dsl::has_errors(clashes)) {
    print_diagnostics(invocation, invocation.err, opened->files->sources, clashes);
    return kInputAtFault;
  }
  auto prompt = prompt_of(options, *opened->model);
  const auto transformer = load_weights(invocation, *opened->model);
  runtime::SessionOptions session_options;
  session_options.seed = invocation.options.seed;
  session_options.cache_directory = invocation.options.cache;
  session_options.progress = terminal_progress(invocation);
  runtime::Session session(*transformer, bound, std::move(session_options));
  const std::set<std::string> passes_off(invocation.options.disabled_passes.begin(), invocation.options.disabled_passes.end());

  std::vector<dsl::Diagnostic> found;
  bool built = false;
  const auto answer = [&](runtime::PlanBuilder& builder) {
    Answered answered{runtime::optimise(builder.take(), bound, passes_off), {}};
    if (!std::exchange(built, true)) found = session.build(answered.plan.features);
    if (found.empty()) answered.evidence = session.carry_out(answered.plan);
    return answered;
  };
  ordered_json acted;
  runtime::GeneratedText written;
  if (options.max_tokens > 0) {
    runtime::PlanBuilder builder(bound);
    const auto state = builder.state({}, in_force);
    const runtime::GenerationKey key{state, builder.sequence(prompt), options.max_tokens, 1, 0};
    builder.want_generation(key);
    const auto answered = answer(builder);
    if (found.empty()) {
      written = answered.evidence.texts(key).front();
      acted = activity(answered, state, bound);
    }
  }
  runtime::PlanBuilder builder(bound);
  const auto state = builder.state({}, in_force);
  const auto sequence = builder.sequence(prompt, written.tokens);
  const auto last = static_cast<std::int64_t>(prompt.tokens.size() + written.tokens.size()) - 1;
  builder.want_top(state, sequence, last, options.top);
  const auto answered = answer(builder);
  if (!found.empty()) {
    print_diagnostics(invocation, invocation.err, opened->files->sources, found);
    return kInputAtFault;
  }
  if (options.max_tokens == 0) acted = activity(answered, state, bound);

  const ordered_json result = {{"model", opened->model->card.name},
                               {"prompt", prompt.text},
                               {"tokens", prompt.tokens},
                               {"next", next_tokens(answered.evidence.at(state, sequence).logits.at(last), *opened->model->tokenizer)},
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
  command->add_option("--rules", options->rules, "rule files whose rules are in force")->type_name("FILE");
  command->add_option("--prompt", options->prompt, "the text to go on from");
  command->add_option("--ids", options->ids, "token ids instead of a text: 1,2,3")->delimiter(',')->type_name("IDS");
  command->add_option("--max-tokens", options->max_tokens, "tokens to generate; 0 gives only the next-token table")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 20))
      ->capture_default_str();
  command->add_option("--top", options->top, "rows of the next-token table")
      ->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 20))
      ->capture_default_str();
  command->add_flag("--chat", options->chat, "the prompt is a user's turn in the model's chat template");
  add_common_options(*command, invocation.options);
  command->callback([options, &invocation] {
    invocation.action = [options, &invocation] { return generate(invocation, *options); };
  });
}

}  // namespace proviso::cli
