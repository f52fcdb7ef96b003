// Shell completion, read off the very commands and options that the program has.

#include <memory>
#include <ostream>
#include <sstream>

#include "cli/program.hpp"

namespace proviso::cli {

namespace {

/// What an option can be given, where that is a closed list: CLI11 keeps it as "TEXT:{a,b}".
std::string choices(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  const auto open = type.find('{'), close = type.rfind('}');
  if (open == std::string::npos || close == std::string::npos) return "";
  std::string words = type.substr(open + 1, close - open - 1);
  for (char& letter : words) {
    if (letter == ',') letter = ' ';
  }
  return words;
}

std::vector<const CLI::App*> subcommands(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

/// Calls `visit` with "proviso", "proviso check", "proviso report", "proviso report show" …
void walk(const CLI::App& app, const std::string& path,
          const std::function<void(const CLI::App&, const std::string&)>& visit) {
  visit(app, path);
  for (const CLI::App* command : subcommands(app)) walk(*command, path + " " + command->get_name(), visit);
}

std::vector<std::string> words_of(const CLI::Option& option) {
  std::vector<std::string> words;
  for (const std::string& name : option.get_lnames()) words.push_back("--" + name);
  for (const std::string& name : option.get_snames()) words.push_back("-" + name);
  return words;
}

std::string bash_script(const CLI::App& program) {
  std::ostringstream paths, values, words;
  walk(program, "proviso", [&](const CLI::App& app, const std::string& path) {
    words << "    '" << path << "') words='";
    for (const CLI::App* command : subcommands(app)) {
      paths << "      '" << path << " " << command->get_name() << "') path=\"$path $word\" ;;\n";
      words << command->get_name() << " ";
    }
    for (const CLI::Option* option : app.get_options()) {
      for (const std::string& word : words_of(*option)) {
        words << word << " ";
        if (const std::string known = choices(*option); !known.empty()) {
          values << "    '" << path << " " << word << "') COMPREPLY=($(compgen -W '" << known
                 << "' -- \"$current\")); return ;;\n";
        }
      }
    }
    words << "' ;;\n";
  });
  return "_proviso() {\n"
         "  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} path=proviso words= word\n"
         "  for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
         "    case \"$path $word\" in\n" +
         paths.str() +
         "    esac\n"
         "  done\n"
         "  case \"$path $previous\" in\n" +
         values.str() +
         "  esac\n"
         "  case $path in\n" +
         words.str() +
         "  esac\n"
         "  COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
         "  if [[ $current != -* && $path != proviso ]]; then COMPREPLY+=($(compgen -f -- \"$current\")); fi\n"
         "}\n"
         "complete -o filenames -F _proviso proviso\n";
}

/// zsh runs bash's completion functions.
std::string zsh_script(const CLI::App& program) {
  return "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n" + bash_script(program);
}

std::string fish_quoted(const std::string& text) {
  std::string quoted = "'";
  for (const char letter : text) {
    if (letter == '\'' || letter == '\\') quoted += '\\';
    quoted += letter;
  }
  return quoted + "'";
}

std::string fish_script(const CLI::App& program) {
  std::ostringstream script;
  walk(program, "proviso", [&](const CLI::App& app, const std::string& path) {
    const bool top = app.get_parent() == nullptr;
    const std::string here =
        " -n " + fish_quoted(top ? "__fish_use_subcommand" : "__fish_seen_subcommand_from " + app.get_name());
    for (const CLI::App* command : subcommands(app)) {
      script << "complete -c proviso -f" << here << " -a " << command->get_name() << " -d "
             << fish_quoted(command->get_description()) << "\n";
    }
    for (const CLI::Option* option : app.get_options()) {
      if (option->get_lnames().empty() && option->get_snames().empty()) continue;
      script << "complete -c proviso" << here;
      for (const std::string& name : option->get_lnames()) script << " -l " << name;
      for (const std::string& name : option->get_snames()) script << " -s " << name;
      if (const std::string known = choices(*option); !known.empty()) script << " -x -a " << fish_quoted(known);
      script << " -d " << fish_quoted(option->get_description()) << "\n";
    }
  });
  return script.str();
}

}  // namespace

void register_completion(CLI::App& program, Invocation& invocation) {
  CLI::App* completion = program.add_subcommand("completion", "Print a completion script for a shell");
  completion->require_subcommand(1);
  completion->footer("bash: source <(proviso completion bash)\nfish: proviso completion fish | source");

  using Script = std::string (*)(const CLI::App&);
  for (const auto& [shell, script] : std::initializer_list<std::pair<const char*, Script>>{
           {"bash", bash_script}, {"zsh", zsh_script}, {"fish", fish_script}}) {
    CLI::App* command = completion->add_subcommand(shell, std::string("For ") + shell);
    command->callback([&program, &invocation, script = script] {
      invocation.action = [&program, &invocation, script] {
        invocation.out << script(program);
        return kDone;
      };
    });
  }
}

}  // namespace proviso::cli
