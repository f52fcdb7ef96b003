#include "runtime/model/sinks.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <catch2/catch.hpp>
#include <filesystem>

#include "tests/support/random_model.hpp"

using namespace proviso;
using namespace proviso::test;

TEST_CASE("sink states are orthonormal, kept between runs, and measured again where what is kept is not theirs") {
  RandomModel random;
  const at::NoGradGuard no_grad;
  TemporaryFolder cache;
  const auto ask = [&](const std::string& folder) {
    return model::sink_states(*random.transformer, *random.tokenizer, folder);
  };
  const auto fresh = ask("");
  REQUIRE(fresh.size(0) >= 1);
  REQUIRE(fresh.size(0) <= 4);
  CHECK(at::allclose(fresh.matmul(fresh.t()), at::eye(fresh.size(0), at::kDouble), 1e-6, 1e-6));

  CHECK(at::equal(ask(cache.path().string()), fresh));
  const auto file = std::filesystem::directory_iterator(cache.path() / "sink_states")->path().string();
  const auto written = read_bytes(file);
  CHECK(at::equal(ask(cache.path().string()), fresh));

  // The file is what is read; one of another model, or a damaged one, is not.
  auto other = written;
  other.replace(other.size() - 4, 4, std::string(4, '\0'));
  write_bytes(file, other);
  CHECK_FALSE(at::equal(ask(cache.path().string()), fresh));
  auto of_another_text = written;
  const auto at = of_another_text.find("\"text\":\"") + 8;
  of_another_text[at] = of_another_text[at] == '0' ? '1' : '0';
  write_bytes(file, of_another_text);
  CHECK(at::equal(ask(cache.path().string()), fresh));
  CHECK(read_bytes(file) == written);
  write_bytes(file, written.substr(0, written.size() - 1));
  CHECK(at::equal(ask(cache.path().string()), fresh));

  CHECK(at::equal(ask("/dev/null/cache"), fresh));  // where nothing can be kept
}
