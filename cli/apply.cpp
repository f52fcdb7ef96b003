#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <filesystem>
#include <iomanip>
#include <map>
#include <memory>
#include <ostream>
#include <sstream>

#include "audit/audit.hpp"
#include "audit/report.hpp"
#include "audit/report_words.hpp"
#include "cli/auditing.hpp"
#include "cli/final_model.hpp"
#include "cli/models.hpp"
#include "cli/output.hpp"
#include "dsl/check.hpp"
#include "editing/corpus.hpp"
#include "editing/ledger.hpp"
#include "editing/side_effects.hpp"
#include "editing/written_form.hpp"
#include "runtime/folds.hpp"
#include "runtime/formats/sha256.hpp"
#include "runtime/hook_file.hpp"
#include "runtime/session.hpp"

namespace proviso::cli {

namespace {

struct Options {
  std::vector<std::string> files;
  std::string model, output;
  std::string dtype;  ///< "" is the source's own
  bool adapter = false;
  bool force = false;
  bool keep_hooks = false;
};

const std::map<std::string, model::ElementType> kWrittenTypes = {{"float32", model::ElementType::f32},
                                                                 {"float16", model::ElementType::f16},
                                                                 {"bfloat16", model::ElementType::bf16},
                                                                 {"q8_0", model::ElementType::q8_0}};

/// What is written, as the options and the names of the files say. Throws `InputError` where they do not go together.
editing::WrittenForm written_form(const Options& options) {
  using Kind = editing::WrittenForm::Kind;
  const auto is_gguf = [](const std::string& path) { return std::filesystem::path(path).extension() == ".gguf"; };
  editing::WrittenForm form;
  if (!options.dtype.empty()) form.type = kWrittenTypes.at(options.dtype);
  if (options.adapter) {
    form.kind = Kind::adapter;
    if (is_gguf(options.output))
      throw model::InputError(options.output + ": an adapter is a folder\n  help: name it without .gguf");
    if (form.type.value_or(model::ElementType::f32) != model::ElementType::f32)
      throw model::InputError("--dtype " + options.dtype +
                              ": an adapter holds its factors in float32\n  help: leave --dtype out");
    form.type.reset();
  } else if (is_gguf(options.output)) {
    form.kind = Kind::gguf;
    if (!is_gguf(options.model))
      throw model::InputError(options.output + ": a GGUF file is written of a model that came as one, and " +
                              options.model + " did not\n  help: name a folder");
  } else if (form.type == model::ElementType::q8_0) {
    throw model::InputError(
        "--dtype q8_0: is a type of GGUF files\n  help: name the output OUT.gguf, or use float16 or bfloat16");
  }
  if (options.keep_hooks && form.kind != Kind::hugging_face)
    throw model::InputError("--hooks keep: rules that stay hooks are written into a model's folder, and " +
                            std::string(form.kind == Kind::gguf ? "a GGUF file" : "an adapter") +
                            " is none\n  help: write a folder, or leave --hooks out");
  return form;
}

/// The entries of a ledger, in the order in which they are applied.
class Entries {
 public:
  Entries(const BoundFiles& opened, model::Transformer& transformer)
      : rules_(*opened.files->rules),
        sources_(opened.files->sources),
        transformer_(transformer),
        applied_(transformer) {}

  void add(const runtime::SolvedEdit& solved) {
    const auto& declared = rules_.edits[solved.edit];
    add(declared.name, declared.span, solved.deltas, solved.certificates, solved.costs);
    entries_.back().kept_keys = solved.kept_keys;
  }

  /// All folds are one entry: they are one change of the model, site by site.
  void add(const std::vector<runtime::FoldedSite>& folds, const std::vector<runtime::PlannedSentence>& sentences,
           const model::Tokenizer& tokenizer, const editing::Corpus& unseen) {
    std::vector<std::string> rules;
    std::vector<editing::WeightDelta> deltas;
    editing::Certificate certificate;
    certificate.method = "fold";
    for (const auto& fold : folds) {
      for (std::size_t i : fold.sentences) {
        if (std::find(rules.begin(), rules.end(), sentences[i].rule) == rules.end()) rules.push_back(sentences[i].rule);
      }
      for (const auto& delta : fold.deltas) {
        certificate.changes.push_back(editing::describe_change(transformer_, delta));
        deltas.push_back(delta);
      }
    }
    if (rules.empty()) return;
    certificate.measured = editing::norm_ratio(transformer_, tokenizer, deltas, unseen);
    auto costs = editing::text_costs(transformer_, tokenizer, deltas, unseen);
    std::string name;
    for (const auto& rule : rules) name += (name.empty() ? "" : ", ") + rule;
    const auto first = std::find_if(rules_.rules.begin(), rules_.rules.end(),
                                    [&](const dsl::RuleDecl& rule) { return rule.name == rules.front(); });
    add(name, first->span, std::move(deltas), {std::move(certificate)}, std::move(costs));
  }

  /// The entries; the model is as loaded again.
  std::vector<editing::LedgerEntry> take() {
    applied_.revert();
    return std::move(entries_);
  }

 private:
  void add(const std::string& name, dsl::Span span, std::vector<editing::WeightDelta> deltas,
           std::vector<editing::Certificate> certificates, editing::NamedNumbers costs) {
    const auto& source = sources_.at(span.source);
    bool changed = false;
    for (const auto& delta : deltas) changed = applied_.apply(delta) || changed;
    if (!changed) {
      throw model::InputError(name +
                              " changes no byte of the model that is there by then: there is nothing to apply\n" +
                              "  help: leave it out, or make it stronger");
    }
    entries_.push_back({name, source.path, model::sha256_hex(std::as_bytes(std::span(source.text))), std::move(deltas),
                        std::move(certificates), std::move(costs)});
  }

  const dsl::RuleSet& rules_;
  const dsl::SourceSet& sources_;
  model::Transformer& transformer_;
  editing::AppliedDeltas applied_;
  std::vector<editing::LedgerEntry> entries_;
};

/// Every rule that cannot be baked into weights, as an error each.
std::vector<dsl::Diagnostic> unbakeable(const runtime::ModelState& state, const dsl::RuleSet& rules, bool keep_hooks) {
  std::vector<dsl::Diagnostic> found;
  for (const auto& replacement : state.replacements) {
    const auto& suppression = std::get<dsl::CircuitSuppression>(replacement.what);
    const auto& circuit = rules.circuits[suppression.circuit];
    found.push_back(dsl::make_diagnostic(
        dsl::Code::not_foldable, replacement.span(),
        "rule `" + replacement.rule + "` cannot be baked into weights: it leaves the attention sink at position 0 as " +
            "it is, and what it takes out stands in the pairs of circuit `" + circuit.name + "`",
        {circuit.keep.nodes ? "take the circuit out of the weights, at every position: edit E { remove circuit " +
                                  circuit.name + "  using ablate }"
                            : "let the circuit keep nodes, which an edit can remove: keep 5% nodes"}));
  }
  if (keep_hooks) return found;
  const auto& sentences = state.sentences;
  for (const auto& sentence : sentences) {
    if (sentence.hooks.empty()) continue;
    found.push_back(dsl::make_diagnostic(
        dsl::Code::not_foldable, sentence.sentence.span,
        "rule `" + sentence.rule + "` cannot be baked into weights: " + sentence.why,
        {"`--hooks keep` writes it beside the model, in hooks.proviso",
         "or act without a condition at sites that a linear map writes: attn_out, mlp_out, embed"}));
  }
  return found;
}

/// Rules that an earlier `apply --hooks keep` wrote beside the model are part of what it does.
void require_hooks_named(const Options& options) {
  std::error_code absent;
  const std::filesystem::path model(options.model);
  const auto hooks = (std::filesystem::is_directory(model, absent) ? model : model.parent_path()) / editing::kHookRules;
  if (!std::filesystem::exists(hooks, absent)) return;
  const auto same = [&](const std::string& file) { return std::filesystem::equivalent(file, hooks, absent); };
  if (std::any_of(options.files.begin(), options.files.end(), same)) return;
  throw model::InputError(hooks.string() + ": holds rules that belong to this model and would be lost\n" +
                          "  help: name it among the rule files, with --hooks keep, or remove it");
}

std::string percent(double share) {
  std::ostringstream text;
  text << std::setprecision(3) << 100 * share << " %";
  return text.str();
}

/// The edited tensors that their file's type does not hold to the bit.
void tell_rounding(const std::vector<editing::RoundedTensor>& rounded, std::ostream& err) {
  for (const auto& tensor : rounded) {
    if (!tensor.change_kept) continue;
    err << tensor.tensor << " is rounded to " << model::element_type_name(tensor.type) << ": by "
        << percent(tensor.relative_error) << " of its norm, and " << percent(*tensor.change_kept)
        << " of its change is kept\n";
  }
}

/// An edit of which the file that is written would hold nothing is none.
void require_kept(const std::vector<editing::LedgerEntry>& entries,
                  const std::vector<editing::RoundedTensor>& rounded) {
  for (const auto& entry : entries) {
    const editing::RoundedTensor* gone = nullptr;
    const bool all_gone = std::ranges::all_of(entry.deltas, [&](const editing::WeightDelta& delta) {
      const auto found = std::ranges::find(rounded, delta.tensor, &editing::RoundedTensor::tensor);
      if (found == rounded.end() || !found->change_gone) return false;
      gone = &*found;
      return true;
    });
    if (!all_gone || gone == nullptr) continue;
    throw model::InputError(entry.name + " is gone once its tensors are written as " +
                            std::string(model::element_type_name(gone->type)) +
                            ": there is nothing to apply\n  help: a wider --dtype keeps it, or make it stronger");
  }
}

void tell_written(std::size_t changes, const std::string& output, const editing::WrittenForm& form, std::ostream& err) {
  err << "wrote " << output << " with " << audit::counted(static_cast<std::int64_t>(changes), "change") << "; ";
  switch (form.kind) {
    case editing::WrittenForm::Kind::hugging_face:
      err << "`proviso revert " << output << " -o DIR2` undoes this\n";
      break;
    case editing::WrittenForm::Kind::gguf:
      err << "`proviso revert " << output << " -o OUT2.gguf` undoes this, from " << output << ".proviso\n";
      break;
    case editing::WrittenForm::Kind::adapter:
      err << "the model without the adapter is as it was\n";
      break;
  }
}

int apply(const Invocation& invocation, const Options& options) {
  const auto form = written_form(options);
  editing::require_new_output(options.output, form.kind);
  require_hooks_named(options);
  const auto opened = bind_rules(invocation, options.files, options.model);
  if (!opened->bound) return kInputAtFault;
  const auto& bound = *opened->bound;
  const auto& rules = *bound.rules;
  const auto edits = rules.own_edits();
  const auto in_force = rules.own_rules();
  if (edits.empty() && in_force.empty()) {
    throw model::InputError("these files hold no edit and no rule: there is nothing to apply");
  }
  const auto refuse = [&](const std::vector<dsl::Diagnostic>& diagnostics) {
    print_diagnostics(invocation, invocation.err, opened->files->sources, diagnostics);
    return dsl::has_errors(diagnostics);
  };
  if (refuse(dsl::contradictions(rules, in_force))) return kInputAtFault;
  audit::AuditOptions judged = audit_options(invocation);
  judged.selection = {.checks = false, .edits = true, .examples = false, .only = ""};
  std::unique_ptr<model::Transformer> transformer;
  {
    runtime::PlanBuilder all(bound);
    all.state(edits, in_force);
    auto needed = all.plan().features;
    needed.merge(audit::plan_audit(bound, judged).features);
    const bool chosen = choose_sites(invocation, *opened, needed, [&]() -> model::Transformer& {
      transformer = load_weights(invocation, *opened->model);
      return *transformer;
    });
    if (!chosen) return kInputAtFault;
  }
  runtime::PlanBuilder builder(bound);
  const auto state = builder.state(edits, in_force);
  auto plan = runtime::optimise(builder.take(), bound, judged.passes_off);
  const auto& sentences = plan.states[state].sentences;
  if (refuse(unbakeable(plan.states[state], rules, options.keep_hooks))) return kInputAtFault;

  if (!transformer) transformer = load_weights(invocation, *opened->model);
  const auto session_options = audit_session_options(invocation, *opened);
  runtime::Session session(*transformer, bound, session_options);
  FinalModel final(session, *opened, judged);
  const auto missed = [&](const char* where) {
    if (edits.empty() || !final.missed()) return false;
    const Terminal seen = terminal(invocation.err);
    invocation.err << audit::to_text(final.report(), seen.columns, false);
    for (const auto& broken : final.broken()) invocation.err << "proviso: " << broken << "\n";
    if (options.force) return false;
    invocation.err << "proviso: an edit missed what it expects" << where
                   << "; nothing was written (--force writes all the same)\n";
    return true;
  };
  if (!edits.empty() && refuse(final.measure_alone())) return kInputAtFault;
  if (missed("")) return kFailed;
  if (refuse(session.build(plan.features))) return kInputAtFault;
  const at::NoGradGuard no_grad;
  session.prepare(plan);
  Entries entries(*opened, *transformer);
  for (const auto& edit : solved(session, rules, edits)) entries.add(edit);
  entries.add(runtime::fold_sentences(sentences, session.features(), *transformer), sentences,
              *opened->model->tokenizer, editing::read_corpus(shipped_held_out()));
  auto made = entries.take();
  const auto rounded = editing::rounded_tensors(*transformer, made, form, /*unchanged_too=*/!edits.empty());
  require_kept(made, rounded);
  if (!invocation.options.quiet) tell_rounding(rounded, invocation.err);
  if (!edits.empty()) {
    final.measure_final(made, rounded);
    if (missed(" in the model as it would be written")) return kFailed;
    final.record(made);
  }
  const auto kept = runtime::hook_file(sentences, session.features(), bound,
                                       [&](const dsl::Quantile& quantile) { return session.quantile(quantile); });
  editing::write_edited_model(*transformer, *opened->model->tokenizer, made,
                              {options.output, form, kept, "", std::nullopt, session_options.inherited_keys});
  if (!invocation.options.quiet) tell_written(made.size(), options.output, form, invocation.err);
  return kDone;
}

}  // namespace

void register_apply(CLI::App& program, Invocation& invocation) {
  CLI::App* command = program.add_subcommand("apply", "Write the edited model, with its ledger and certificates");
  auto options = std::make_shared<Options>();
  add_rule_files(*command, options->files);
  add_model_option(*command, options->model);
  command
      ->add_option("-o", options->output,
                   "the folder to write, or OUT.gguf where the model is a GGUF file; what exists is never overwritten")
      ->check(kNotEmpty)
      ->type_name("DIR")
      ->required();
  command
      ->add_option_function<std::string>(
          "--as", [options](const std::string& form) { options->adapter = form == "adapter"; },
          "what to write: the whole model (unless told), or the changes alone, as a LoRA adapter that PEFT loads")
      ->check(CLI::IsMember({"model", "adapter"}));
  command
      ->add_option_function<std::string>(
          "--hooks", [options](const std::string&) { options->keep_hooks = true; },
          "keep: write rules that weights cannot hold beside the model, as DIR/hooks.proviso")
      ->check(CLI::IsMember({"keep"}));
  command->add_flag("--force", options->force, "write also where an edit misses what it expects");
  add_common_options(*command, invocation.options);
  // Here it is not what the model computes in, which is float32.
  command->remove_option(command->get_option("--dtype"));
  command
      ->add_option(
          "--dtype", options->dtype,
          "type of the tensors that are written: all of a folder's, the edited ones of a GGUF file (only there "
          "q8_0); the source's own unless told")
      ->check(CLI::IsMember(kWrittenTypes))
      ->group("Common options");
  command->callback(
      [options, &invocation] { invocation.action = [options, &invocation] { return apply(invocation, *options); }; });
}

}  // namespace proviso::cli
