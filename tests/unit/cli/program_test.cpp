// The program from outside: arguments in, exit code and streams out.

#include "cli/program.hpp"

#include <catch2/catch.hpp>
#include <sstream>

#include "runtime/formats/tensor_file.hpp"
#include "tests/unit/cli/run_program.hpp"

using namespace proviso;
using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;

TEST_CASE("--help names every command, and every command's help its options") {
  const Ran help = run_program({"--help"});
  CHECK(help.code == 0);
  for (const char* command : {
#define PROVISO_COMMAND(name) #name,
#include "cli/commands.def"
#undef PROVISO_COMMAND
       }) {
    CHECK_THAT(help.out, Contains(command));
    const Ran own = run_program({command, "--help"});
    CHECK(own.code == 0);
    CHECK(own.err.empty());
  }
  const Ran fmt = run_program({"fmt", "--help"});
  for (const char* option : {"--check", "--device", "--dtype", "--threads", "--seed", "--output", "--quiet",
                             "--verbose", "--allow-path", "--cache", "--strict", "--no-pass"}) {
    CHECK_THAT(fmt.out, Contains(option));
  }
}

TEST_CASE("--version prints name and version") {
  const Ran ran = run_program({"--version"});
  CHECK(ran.code == 0);
  CHECK_THAT(ran.out, StartsWith("proviso 0."));
}

TEST_CASE("a usage error exits with 2 and names the nearest command or option") {
  struct Case {
    std::vector<std::string> arguments;
    std::string said;
  };
  const Case cases[] = {
      {{}, "proviso: error: a command is missing"},
      {{"chekc"}, "unknown command `chekc`\n  help: did you mean `check`?"},
      {{"fmt", "--chekc", "a.proviso"},
       "proviso fmt: error: unknown option `--chekc`\n  help: did you mean `--check`?"},
      {{"fmt", "--devise=cpu"}, "unknown option `--devise`\n  help: did you mean `--device`?"},
      {{"fmt"}, "FILE is required"},
      {{"report", "shwo", "x"}, "did you mean `show`?"},
      {{"fmt", "--device", "tpu", "a"}, "name cpu, cuda or cuda:N"},
      {{"fmt", "--dtype", "float64", "a"}, "bfloat16"},
      {{"fmt", "--threads", "0", "a"}, "--threads"},
      {{"fmt", "--seed", "0x10", "a"}, "`0x10` is no seed"},
      {{"fmt", "--seed", "1", "--seed", "2", "a"}, "--seed is given twice"},
      {{"fmt", ""}, "is empty"},
      {{"run", "--model", "m", "--ids", "1", "--prompt", "a"}, "--prompt excludes --ids"},
      {{"inspect", "a", "b"}, "unexpected argument `b`"},
  };
  for (const Case& each : cases) {
    const Ran ran = run_program(each.arguments);
    CAPTURE(each.said);
    CHECK(ran.code == 2);
    CHECK(ran.out.empty());
    CHECK_THAT(ran.err, Contains(each.said));
    CHECK_THAT(ran.err, Contains("--help"));
  }
}

TEST_CASE("whatever a command throws becomes a message and an exit code") {
  std::ostringstream err;
  CHECK(cli::guarded([]() -> int { throw model::InputError("m: not there"); }, err) == 2);
  CHECK(cli::guarded([]() -> int { throw model::MachineError("disk full"); }, err) == 3);
  CHECK(cli::guarded([]() -> int { throw std::bad_alloc(); }, err) == 3);
  CHECK(cli::guarded([]() -> int { throw std::logic_error("broken"); }, err) == 3);
  CHECK(cli::guarded([] { return 1; }, err) == 1);
  CHECK_THAT(err.str(), Contains("m: not there") && Contains("disk full") && Contains("out of memory") &&
                            Contains("--dtype bfloat16") && Contains("please report it: broken"));
}

TEST_CASE("a missing model is the input's fault and is named") {
  const Ran ran = run_program({"inspect", "/nowhere/model.gguf"});
  CHECK(ran.code == 2);
  CHECK(ran.out.empty());
  CHECK_THAT(ran.err, Contains("/nowhere/model.gguf"));
}

TEST_CASE("completion scripts know commands, options and closed lists") {
  const Ran bash = run_program({"completion", "bash"});
  CHECK(bash.code == 0);
  CHECK_THAT(bash.out, Contains("'proviso report') path=") && Contains("complete -o filenames -F _proviso proviso"));
  CHECK_THAT(bash.out, Contains("'proviso fmt --dtype') COMPREPLY=($(compgen -W 'float32 bfloat16'"));
  CHECK_THAT(run_program({"completion", "zsh"}).out, Contains("bashcompinit") && Contains("'proviso fmt')"));
  CHECK_THAT(run_program({"completion", "fish"}).out,
             Contains("-n '__fish_seen_subcommand_from fmt' -l check") && Contains("-a 'text yaml json'"));
  CHECK(run_program({"completion", "tcsh"}).code == 2);
}
