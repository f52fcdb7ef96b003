#include <iomanip>
#include <memory>
#include <nlohmann/json.hpp>
#include <ostream>

#include "cli/command.hpp"
#include "cli/models.hpp"
#include "cli/output.hpp"
#include "editing/ledger_history.hpp"

namespace proviso::cli {

namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::string directory, model, name, destination;
};

Json shown(const editing::EditedModel& edited) {
  Json edits = Json::array();
  for (const auto& entry : edited.entries) {
    Json tensors = Json::array();
    std::string methods;
    for (const auto& certificate : entry.certificates) {
      if (methods.find(certificate.method) == std::string::npos)
        methods += (methods.empty() ? "" : ", ") + certificate.method;
      for (const auto& change : certificate.changes)
        tensors.push_back({{"tensor", change.tensor},
                           {"rank", change.rank},
                           {"relative_norm", change.relative_norm},
                           {"sha256_before", change.sha256_before},
                           {"sha256_after", change.sha256_after}});
    }
    Json expectations = Json::array();
    for (const auto& each : entry.expectations)
      expectations.push_back({{"text", each.text},
                              {"status", each.status},
                              {"value", each.value},
                              {"final_status", each.final_status},
                              {"final_value", each.final_value}});
    edits.push_back({{"name", entry.name},
                     {"method", methods},
                     {"rule_file", entry.rule_file},
                     {"rule_sha256", entry.rule_sha256},
                     {"expectations", std::move(expectations)},
                     {"changes", std::move(tensors)}});
    if (!entry.remark.empty()) edits.back()["remark"] = entry.remark;
  }
  Json rounded = Json::array();
  for (const auto& tensor : edited.rounded)
    rounded.push_back({{"tensor", tensor.tensor},
                       {"type", tensor.type},
                       {"relative_error", tensor.relative_error},
                       {"change_kept", tensor.change_kept}});
  return {
      {"source", {{"name", edited.source.name}, {"format", edited.source.format}, {"sha256", edited.source.sha256}}},
      {"form", editing::form_name(edited.form.kind)},
      {"model_sha256", edited.model_sha256},
      {"rounded", std::move(rounded)},
      {"edits", std::move(edits)}};
}

std::string shown_as_text(const editing::EditedModel& edited) {
  std::ostringstream out;
  out << std::setprecision(3);
  out << "made from " << edited.source.name << ", SHA-256 " << edited.source.sha256 << "\n";
  for (const auto& entry : edited.entries) {
    out << entry.name << "  (" << entry.rule_file << ")\n";
    for (const auto& certificate : entry.certificates)
      for (const auto& change : certificate.changes)
        out << "  " << certificate.method << "  " << change.tensor << ", rank " << change.rank << ", "
            << 100 * change.relative_norm << " % of the tensor's norm\n";
    for (const auto& each : entry.expectations) {
      if (each.met()) continue;
      out << "  missed: " << each.text << ": " << each.status << " at " << each.value << " by itself";
      if (!each.final_status.empty())
        out << ", " << each.final_status << " at " << each.final_value << " in the model as written";
      out << "\n";
    }
    if (!entry.remark.empty()) out << "  " << entry.remark << "\n";
  }
  for (const auto& tensor : edited.rounded)
    out << tensor.tensor << " is rounded to " << tensor.type << ": by " << 100 * tensor.relative_error
        << " % of its norm, and " << 100 * tensor.change_kept << " % of its change is kept\n";
  return out.str();
}

CLI::App* add(CLI::App& ledger, const char* name, const char* what, const std::shared_ptr<Options>& options,
              Invocation& invocation) {
  CLI::App* command = ledger.add_subcommand(name, what);
  command->add_option("DIR", options->directory, "what `proviso apply` wrote: a folder, or a GGUF file")
      ->check(kNotEmpty)
      ->required();
  add_common_options(*command, invocation.options);
  return command;
}

void add_destination(CLI::App& command, const std::shared_ptr<Options>& options) {
  command
      .add_option("-o", options->destination,
                  "the folder to write, or a GGUF file where DIR is one; what exists is never overwritten")
      ->check(kNotEmpty)
      ->type_name("DIR2")
      ->required();
}

int wrote(const Invocation& invocation, const Options& options) {
  if (!invocation.options.quiet) invocation.err << "wrote " << options.destination << "\n";
  return kDone;
}

/// Sets what the command does: `act` gives the exit code.
template <class Act>
void does(CLI::App& command, Invocation& invocation, const std::shared_ptr<Options>& options, Act act) {
  command.callback([&invocation, options, act] {
    invocation.action = [&invocation, options, act] { return act(invocation, *options); };
  });
}

}  // namespace

void register_ledger(CLI::App& program, Invocation& invocation) {
  CLI::App* ledger = program.add_subcommand("ledger", "Show, check, repeat and rebuild the edits of a model");
  ledger->require_subcommand(1);
  const auto options = std::make_shared<Options>();

  does(*add(*ledger, "show", "Print the edits that made a model", options, invocation), invocation, options,
       [](const Invocation& run, const Options& asked) {
         const auto edited = editing::read_edited_model(asked.directory);
         const auto format = run.options.output.value_or(OutputFormat::text);
         run.out << (format == OutputFormat::text ? shown_as_text(edited) : render_document(shown(edited), format));
         return kDone;
       });

  CLI::App* verify =
      add(*ledger, "verify", "Check every byte of a model's edits against its ledger", options, invocation);
  verify->add_option("--model", options->model, "also check that this is the model that they were made on")
      ->check(kNotEmpty)
      ->type_name("M");
  does(*verify, invocation, options, [](const Invocation& run, const Options& asked) {
    const auto edited = editing::verify_edited_model(asked.directory);
    if (!asked.model.empty()) editing::require_source(edited, open_model(asked.model)->card, asked.directory);
    run.out << asked.directory << ": " << edited.entries.size() << (edited.entries.size() == 1 ? " edit" : " edits")
            << ", all as applied\n";
    return kDone;
  });

  CLI::App* replay =
      add(*ledger, "replay", "Make the edits again on another copy of the model: the same bytes", options, invocation);
  add_model_option(*replay, options->model);
  add_destination(*replay, options);
  does(*replay, invocation, options, [](const Invocation& run, const Options& asked) {
    editing::require_new_output(asked.destination, editing::read_edited_model(asked.directory).form.kind);
    const auto files = open_model(asked.model);
    const auto transformer = load_weights(run, *files);
    editing::replay_edits(asked.directory, *transformer, *files->tokenizer, asked.destination);
    return wrote(run, asked);
  });

  CLI::App* drop =
      add(*ledger, "drop", "Rebuild the model from its saved bytes without one of its edits", options, invocation);
  drop->add_option("NAME", options->name, "the edit, as `ledger show` names it")->check(kNotEmpty)->required();
  add_destination(*drop, options);
  does(*drop, invocation, options, [](const Invocation& run, const Options& asked) {
    editing::drop_edit(asked.directory, asked.name, asked.destination);
    return wrote(run, asked);
  });

  CLI::App* squash =
      add(*ledger, "squash", "Make one entry of all edits: the same model, undone together", options, invocation);
  add_destination(*squash, options);
  does(*squash, invocation, options, [](const Invocation& run, const Options& asked) {
    editing::squash_edits(asked.directory, asked.destination);
    return wrote(run, asked);
  });
}

}  // namespace proviso::cli
