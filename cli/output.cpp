#include "cli/output.hpp"

#include <sys/ioctl.h>
#include <unistd.h>
#include <yaml-cpp/emitter.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <nlohmann/json.hpp>

#include "runtime/formats/atomic_file.hpp"
#include "runtime/formats/tensor_file.hpp"

namespace proviso::cli {

namespace {

void emit(YAML::Emitter& yaml, const nlohmann::ordered_json& value) {
  if (value.is_object()) {
    yaml << YAML::BeginMap;
    for (const auto& [key, item] : value.items()) {
      yaml << YAML::Key << key << YAML::Value;
      emit(yaml, item);
    }
    yaml << YAML::EndMap;
  } else if (value.is_array()) {
    const bool flat = std::none_of(value.begin(), value.end(), [](const auto& item) { return item.is_structured(); });
    if (flat) yaml << YAML::Flow;
    yaml << YAML::BeginSeq;
    for (const auto& item : value) emit(yaml, item);
    yaml << YAML::EndSeq;
  } else if (value.is_string()) {
    yaml << YAML::DoubleQuoted << value.get<std::string>();
  } else if (const std::string text = value.dump(); text == "null") {  // so is a number that is none
    yaml << YAML::Null;
  } else {
    yaml << text;
  }
}

/// The descriptor behind `out` where it is a terminal, else -1.
int terminal_descriptor(const std::ostream& out) {
  const int stream = &out == &std::cout ? STDOUT_FILENO : &out == &std::cerr ? STDERR_FILENO : -1;
  return stream >= 0 && isatty(stream) ? stream : -1;
}

}  // namespace

void write_result(const Invocation& invocation, const std::string& path, std::string_view text) {
  if (path.empty() || path == "-") {
    invocation.out << text;
  } else {
    model::write_file_atomically(path, text);
  }
}

bool is_terminal(const std::ostream& out) { return terminal_descriptor(out) >= 0; }

Terminal terminal(const std::ostream& out) {
  Terminal terminal;
  const int stream = terminal_descriptor(out);
  if (stream < 0) return terminal;
  winsize size{};
  if (ioctl(stream, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) terminal.columns = size.ws_col;
  terminal.colour = std::getenv("NO_COLOR") == nullptr;
  return terminal;
}

OutputFormat format_for(const Invocation& invocation, const std::string& path,
                        const std::vector<OutputFormat>& offered) {
  if (invocation.options.output) return *invocation.options.output;
  if (path.empty() || path == "-") return OutputFormat::text;
  static const std::vector<std::pair<std::string, OutputFormat>> kEndings = {
      {".html", OutputFormat::html}, {".dot", OutputFormat::dot},   {".gv", OutputFormat::dot},
      {".json", OutputFormat::json}, {".yaml", OutputFormat::yaml}, {".yml", OutputFormat::yaml},
      {".txt", OutputFormat::text}};
  std::string known, none;
  for (const auto& [ending, format] : kEndings) {
    const bool has = format == OutputFormat::text || std::find(offered.begin(), offered.end(), format) != offered.end();
    if (has && path.ends_with(ending)) return format;
    if (has) known += (known.empty() ? "" : ", ") + ending;
    if (!has && path.ends_with(ending)) none = "-o " + path + ": this command writes no " + ending;
  }
  if (!none.empty()) throw model::InputError(none + "\n  help: end it in one of " + known);
  throw model::InputError("-o " + path + ": the ending does not tell what to write\n  help: end it in one of " + known);
}

std::string render_document(const nlohmann::ordered_json& document, OutputFormat format) {
  if (format == OutputFormat::json) return document.dump(2) + "\n";
  YAML::Emitter yaml;
  emit(yaml, document);
  return std::string(yaml.c_str()) + "\n";
}

}  // namespace proviso::cli
