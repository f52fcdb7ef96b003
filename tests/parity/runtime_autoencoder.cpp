// Against SAELens: folders that it wrote, and what it computes with them (tests/parity/autoencoders/generate.py).
#include <ATen/ATen.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <map>
#include <string>

#include "runtime/autoencoders/autoencoder.hpp"
#include "runtime/formats/safetensors.hpp"
#include "tests/support/temporary_folder.hpp"

namespace proviso::runtime {
namespace {

const std::string kFolder = PROVISO_SOURCE_DIR "/tests/parity/autoencoders/";

std::map<std::string, at::Tensor> tensors_of(const std::string& path) {
  std::map<std::string, at::Tensor> values;
  for (const auto& stored : model::read_safetensors(path).tensors) {
    auto value = at::empty(stored.shape, at::kFloat);
    model::dequantize(stored, {value.data_ptr<float>(), static_cast<std::size_t>(value.numel())});
    values[stored.name] = value;
  }
  return values;
}

bool close(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() && at::allclose(a, b, /*rtol=*/1e-5, /*atol=*/2e-6);
}

}  // namespace

TEST_CASE("autoencoders of every architecture give SAELens' activations and outputs") {
  const std::string name = GENERATE("standard", "standard_layer_norm", "standard_expected_average", "gated", "jumprelu",
                                    "topk", "topk_plain", "transcoder", "skip_transcoder", "old_standard", "old_topk");
  CAPTURE(name);
  const auto card = read_autoencoder_card(kFolder + name);
  const auto autoencoder = Autoencoder::load(card, at::kCPU);
  const auto expected = tensors_of(kFolder + name + "/expected.safetensors");
  const auto& x = expected.at("x");
  const auto& activations = expected.at("activations");
  CHECK(close(autoencoder->encode(x).activations, activations));
  CHECK(close(autoencoder->reconstruct(x), expected.at("out")));
  const auto some = at::tensor({7, 0, 11}, at::kLong);
  CHECK(close(autoencoder->encode(x, some).activations, activations.index_select(1, some)));
  // A latent's change by one moves the output by its decoder row.
  auto encoded = autoencoder->encode(x);
  const auto before = autoencoder->decode(x, encoded);
  encoded.activations.select(1, 4).add_(1);
  const auto scale = encoded.scale.defined() ? encoded.scale.unsqueeze(1) : at::ones({x.size(0), 1});
  CHECK(close(autoencoder->decode(x, encoded), before + scale * autoencoder->decoder_row(4)));
}

TEST_CASE("where an autoencoder belongs is read from either generation of names") {
  const auto site = [](const std::string& name) { return dsl::to_string(read_autoencoder_card(kFolder + name).site); };
  CHECK(site("standard") == "resid_post[1]");
  CHECK(site("old_standard") == "z[1]");
  CHECK(site("old_topk") == "embed");
  CHECK(site("transcoder") == "resid_mid[1]");
  CHECK(dsl::to_string(read_autoencoder_card(kFolder + "transcoder").written) == "mlp_out[1]");
  CHECK(read_autoencoder_card(kFolder + "old_topk").k == 2);
  CHECK(read_autoencoder_card(kFolder + "standard_expected_average").scale_untold);
}

TEST_CASE("autoencoders that are not fully understood are refused by name") {
  const auto [from, to, said] = GENERATE(table<std::string, std::string, std::string>(
      {{"\"standard\"", "\"temporal\"", "'architecture' is 'temporal'"},
       {"\"d_in\": 8", "\"d_in\": 9", "tensor 'W_enc' has the shape [8, 12], and cfg.json says [9, 12]"},
       {"\"device\"", "\"temperature\"", "'temperature' (\"cpu\") is not known"},
       {"\"none\"", "\"covariance_whitening\"", "'normalize_activations' is 'covariance_whitening'"},
       {"\"standard\"", "\"jumprelu\"", "holds no tensor 'threshold'"},
       {"\"standard\"", "\"topk\"", "'k' is missing"},
       {"blocks.1.hook_resid_post", "blocks.1.ln2.hook_normalized", "has no equal site here"},
       {"\"d_sae\": 12", "\"d_sae\": 0", "'d_sae' must be a positive whole number"},
       {"{\"d_in\"", "\"d_in\"", "cfg.json"}}));
  CAPTURE(from, to);
  const test::TemporaryFolder folder;
  std::filesystem::copy(kFolder + "standard", folder.path(), std::filesystem::copy_options::recursive);
  std::string cfg = test::read_bytes(folder / "cfg.json");
  REQUIRE(cfg.find(from) != std::string::npos);
  cfg.replace(cfg.find(from), from.size(), to);
  test::write_bytes(folder / "cfg.json", cfg);
  CHECK_THROWS_WITH(read_autoencoder_card(folder.path().string()), Catch::Contains(said));
}

TEST_CASE("an autoencoder with weights that are no numbers is refused") {
  const test::TemporaryFolder folder;
  std::filesystem::copy(kFolder + "standard", folder.path(), std::filesystem::copy_options::recursive);
  std::string bytes = test::read_bytes(folder / "sae_weights.safetensors");
  for (std::size_t i = 0; i < 4; ++i) bytes[bytes.size() - 4 + i] = static_cast<char>(0xff);
  test::write_bytes(folder / "sae_weights.safetensors", bytes);
  CHECK_THROWS_WITH(Autoencoder::load(read_autoencoder_card(folder.path().string()), at::kCPU),
                    Catch::Contains("values that are no numbers"));
}

}  // namespace proviso::runtime
