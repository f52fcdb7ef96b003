#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <regex>

#include "cli/command.hpp"

namespace proviso::cli {

namespace {

std::string default_cache() {
  const auto variable = [](const char* name) -> std::filesystem::path {
    const char* value = std::getenv(name);
    return value ? value : "";
  };
  if (const auto cache = variable("XDG_CACHE_HOME"); !cache.empty()) return cache / "proviso";
  if (const auto home = variable("HOME"); !home.empty()) return home / ".cache" / "proviso";
  return std::filesystem::temp_directory_path() / "proviso-cache";
}

/// A device as LibTorch names it; the type name's braces are what shell completion offers.
const CLI::Validator kDevice(
    [](std::string& text) -> std::string {
      static const std::regex pattern("cpu|cuda(:[0-9]{1,3})?");
      return std::regex_match(text, pattern) ? "" : "`" + text + "` is no device: name cpu, cuda or cuda:N";
    },
    "{cpu,cuda,cuda:0}");

const CLI::Validator kSeed(
    [](std::string& text) -> std::string {
      const auto seed = whole_number(text);
      if (!seed) return "`" + text + "` is no seed: write digits, for at most 18446744073709551615";
      text = std::to_string(*seed);
      return "";
    },
    "");

}  // namespace

const CLI::Validator kNotEmpty([](std::string& text) -> std::string { return text.empty() ? "is empty" : ""; }, "");

std::optional<std::uint64_t> whole_number(std::string_view text) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

void add_common_options(CLI::App& command, CommonOptions& options, const std::map<std::string, OutputFormat>& more) {
  const std::string group = "Common options";
  options.cache = default_cache();

  command.add_option("--device", options.device, "where the model runs: cpu, cuda or cuda:N")
      ->check(kDevice)
      ->capture_default_str()
      ->group(group);
  command.add_option("--dtype", options.dtype, "what the model computes in")
      ->check(CLI::IsMember({"float32", "bfloat16"}))
      ->capture_default_str()
      ->group(group);
  command.add_option("--threads", options.threads, "threads to compute with; one a core unless told")
      ->check(CLI::Range(1, 4096))
      ->group(group);
  command.add_option("--seed", options.seed, "of everything drawn at random")
      ->transform(kSeed)
      ->capture_default_str()
      ->group(group);
  std::vector<std::string> names = {"text", "yaml", "json"};
  std::map<std::string, OutputFormat> formats = {
      {"text", OutputFormat::text}, {"yaml", OutputFormat::yaml}, {"json", OutputFormat::json}};
  for (const auto& [name, format] : more) {
    names.push_back(name);
    formats.emplace(name, format);
  }
  command
      .add_option_function<std::string>(
          "--output", [&options, formats](const std::string& name) { options.output = formats.at(name); },
          "form of what is printed")
      ->check(CLI::IsMember(names))
      ->group(group);
  command.add_flag("--quiet", options.quiet, "no progress, no remarks; errors stay")->group(group);
  command.add_flag("--verbose", options.verbose, "tell on standard error what is done and how long it takes")
      ->group(group);
  command
      .add_option("--allow-path", options.allowed_paths,
                  "another folder that rule files may read from; may be given several times")
      ->type_name("DIR")
      ->allow_extra_args(false)
      ->group(group);
  command.add_option("--cache", options.cache, "folder for what can be computed again")
      ->type_name("DIR")
      ->capture_default_str()
      ->group(group);
  command.set_version_flag("--version", "proviso " PROVISO_VERSION, "print the version")->group(group);
  command.add_flag("--strict", options.strict, "warnings count as errors")->group(group);
  command
      .add_option("--no-pass", options.disabled_passes,
                  "leave out one pass of the plan, by name (`proviso explain` lists them); may be given several times")
      ->type_name("NAME")
      ->allow_extra_args(false)
      ->group(group);
}

}  // namespace proviso::cli
