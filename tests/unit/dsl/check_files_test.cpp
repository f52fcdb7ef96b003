// What `check` does with the disk: files that are not there, folders that may not be left, the shipped library.

#include <catch2/catch.hpp>
#include <filesystem>
#include <string>

#include "dsl/check.hpp"
#include "dsl/render.hpp"
#include "tests/support/temporary_folder.hpp"

namespace proviso::dsl {
namespace {

namespace fs = std::filesystem;
using test::TemporaryFolder;
using test::write_bytes;

/// The slugs of what is said about files, in order: "unreadable-file unknown-name".
std::string said(const std::vector<std::string>& paths, const LoadOptions& options = {}) {
  SourceSet sources;
  const auto outcome = check_files(sources, paths, options);
  CHECK(outcome.value.has_value() != has_errors(outcome.diagnostics));
  CHECK_FALSE(render_text(outcome.diagnostics, sources).empty() != outcome.diagnostics.empty());
  std::string slugs;
  for (const Diagnostic& diagnostic : outcome.diagnostics) {
    slugs += (slugs.empty() ? "" : " ") + std::string(slug(diagnostic.code));
  }
  return slugs;
}

}  // namespace

TEST_CASE("check_files: every file that cannot be read is said") {
  const TemporaryFolder folder;
  write_bytes(folder / "bad.proviso", "prompts p = [\"\"]\n");
  CHECK(said({folder / "nowhere.proviso"}) == "unreadable-file");
  CHECK(said({folder.path().string()}) == "unreadable-file");
  CHECK(said({folder / "nowhere.proviso", folder / "bad.proviso"}) == "unreadable-file empty-prompt");
}

TEST_CASE("check_files: data that rules name must be there, where that is asked") {
  const TemporaryFolder folder;
  write_bytes(folder / "a.proviso",
              "prompts p = from \"missing.txt\"\n"
              "feature f = direction(\"v.safetensors\", tensor: \"v\") at resid_post[3]\n"
              "feature g = latent(3, sae: \"nosae\")\n"
              "edit e { facts from \"nofacts.json\" using memit }\n");
  LoadOptions options;
  CHECK(said({folder / "a.proviso"}, options).empty());
  options.look_for_data = true;
  CHECK(said({folder / "a.proviso"}, options) == "unreadable-file unreadable-file unreadable-file unreadable-file");
}

TEST_CASE("check_files: a file given twice, by whatever path, is read once") {
  const TemporaryFolder folder;
  write_bytes(folder / "a.proviso", "check c { expect perplexity([\"a text\"]) <= 30 }\n");
  fs::create_symlink("a.proviso", folder / "link.proviso");
  CHECK(said({folder / "a.proviso", folder / "./a.proviso", folder / "link.proviso"}).empty());
}

TEST_CASE("check_files: paths stay under the rule file's folder, symbolic links resolved") {
  const TemporaryFolder folder;
  write_bytes(folder / "outside/texts.txt", "one\n");
  write_bytes(folder / "rules/inside/texts.txt", "one\n");
  fs::create_directory_symlink("../outside", folder / "rules/link");
  fs::create_directory_symlink("inside", folder / "rules/inner");
  const std::string rules = folder / "rules/a.proviso";
  const auto reads = [&](const std::string& path) { write_bytes(rules, "prompts p = from \"" + path + "\"\n"); };

  reads("inside/texts.txt");
  CHECK(said({rules}).empty());
  reads("inner/../inside/texts.txt");
  CHECK(said({rules}).empty());
  reads(folder / "rules/inside/texts.txt");
  CHECK(said({rules}).empty());

  for (const std::string& path : {std::string("../outside/texts.txt"), std::string("link/texts.txt"),
                                  std::string("inside/../../outside/texts.txt"), folder / "outside/texts.txt",
                                  std::string("../rules2/texts.txt")}) {
    INFO(path);
    reads(path);
    CHECK(said({rules}) == "path-outside");
  }
  reads("link/texts.txt");
  CHECK(said({rules}, {.allowed_paths = {folder / "outside"}, .library_path = "", .look_for_data = true}).empty());
  CHECK(said({rules}, {.allowed_paths = {folder / "outside/"}, .library_path = "", .look_for_data = true}).empty());
}

TEST_CASE("check_files: a used file's own paths are relative to it") {
  const TemporaryFolder folder;
  write_bytes(folder / "a.proviso", "use \"pack/b.proviso\"\n");
  write_bytes(folder / "pack/b.proviso", "prompts p = from \"../p.txt\"\n");
  CHECK(said({folder / "a.proviso"}) == "path-outside");
  write_bytes(folder / "pack/b.proviso", "prompts p = from \"p.txt\"\n");
  CHECK(said({folder / "a.proviso"}).empty());
}

TEST_CASE("check_files: the shipped library") {
  const TemporaryFolder folder;
  const LoadOptions options{.allowed_paths = {}, .library_path = folder / "library", .look_for_data = false};
  write_bytes(folder / "library/gender/gender.proviso",
              "feature gender = contrast([\"that she\"], [\"that he\"]) at resid_post[12]\n"
              "rule neutral { suppress gender }\n");
  const std::string rules = folder / "a.proviso";
  const std::string check = "\ncheck c { under rule neutral  expect kl([\"a text\"]) <= 1 }\n";

  write_bytes(rules, "use std/gender" + check);
  CHECK(said({rules}, options).empty());
  CHECK(said({rules}) == "unknown-library");

  write_bytes(rules, "use std/gendr" + check);
  SourceSet sources;
  const auto outcome = check_files(sources, {rules}, options);
  REQUIRE(outcome.diagnostics.size() == 1);
  CHECK(outcome.diagnostics[0].code == Code::unknown_library);
  CHECK(outcome.diagnostics[0].help == std::vector<std::string>{"did you mean std/gender?"});
}

TEST_CASE("check: hostile texts are answered, never followed") {
  SourceSet sources;
  std::string deep =
      "prompts p = [\"a b\", \"c d\"]\nprompts q = [\"e f\"]\nfeature f = contrast(p, q) at resid_post[3]\nrule r { "
      "suppress f when ";
  for (int i = 0; i < 100'000; ++i) deep += "not (";
  const SourceId nested = sources.add("deep.proviso", deep);
  CHECK_FALSE(check_sources(sources, {nested}));

  const SourceId bytes = sources.add("bytes.proviso", std::string("prompts p = [\"\xff\xfe\0\"]", 19));
  CHECK_FALSE(check_sources(sources, {bytes}));

  const SourceId nothing = sources.add("nothing.proviso", "");
  CHECK(check_sources(sources, {nothing}));
}

}  // namespace proviso::dsl
