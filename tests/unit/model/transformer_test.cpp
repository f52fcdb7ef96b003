#include "runtime/model/transformer.hpp"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <functional>

#include "tests/support/reference_models.hpp"

using namespace proviso;
using model::KeyValueCache;
using model::Pass;
using model::Row;
using test::difference;
using test::logits_of;

namespace {

constexpr double kRounding = 1e-5;

const std::vector<std::vector<std::int64_t>> kTexts = {
    {3, 14, 15, 9, 26, 5}, {35, 8}, {9, 7, 9, 3, 23, 8}, {46, 26, 43}};

at::Tensor alone(const model::Transformer& transformer, const std::vector<std::int64_t>& text) {
  const std::vector<Row> rows = test::rows_of({text});
  return logits_of(transformer, {.rows = &rows});
}

std::vector<std::int64_t> part(const std::vector<std::int64_t>& text, std::size_t first, std::size_t end) {
  return {text.begin() + static_cast<std::ptrdiff_t>(first), text.begin() + static_cast<std::ptrdiff_t>(end)};
}

std::unique_ptr<model::Transformer> any_tiny_model() {
  const std::string name = GENERATE(from_range(test::kTinyModels));
  INFO(name);
  return test::load_tiny_model(name);
}

/// Does something to one site's values.
struct Writer : model::SiteVisitor {
  dsl::Site site;
  std::function<void(at::Tensor&)> write;
  int calls = 0;

  Writer(dsl::Site at, std::function<void(at::Tensor&)> change) : site(at), write(std::move(change)) {}
  bool wants(const dsl::Site& other) const override { return other == site; }
  void visit(const dsl::Site&, at::Tensor& x, const model::PackedLayout&) override {
    ++calls;
    write(x);
  }
};

/// Sees patterns without changing them: attention then runs in its explicit form.
struct PatternReader : model::SiteVisitor {
  bool wants(const dsl::Site& site) const override { return site.kind == dsl::SiteKind::pattern; }
  void visit(const dsl::Site&, at::Tensor&, const model::PackedLayout&) override {}
};

std::vector<dsl::Site> canonical_sites(const model::ModelCard& card) {
  std::vector<dsl::Site> sites;
  const auto add = [&](dsl::SiteKind kind, bool layered) {
    if (!card.missing_site(kind).empty()) return;
    for (std::int64_t layer = 0; layer < (layered ? card.config.layers : 1); ++layer) {
      const dsl::Site site{kind, layered ? layer : -1};
      if (dsl::canonical(site) == site) sites.push_back(site);
    }
  };
#define PROVISO_SITE(name, layered, heads, width) add(dsl::SiteKind::name, layered);
#include "dsl/sites.def"
#undef PROVISO_SITE
  std::sort(sites.begin(), sites.end());
  return sites;
}

}  // namespace

TEST_CASE("rows of different lengths give what each gives alone") {
  const c10::NoGradGuard no_grad;
  const auto transformer = any_tiny_model();
  const std::vector<Row> rows = test::rows_of(kTexts);
  PatternReader reader;
  model::SiteVisitor* visitor = GENERATE(false, true) ? &reader : nullptr;
  const at::Tensor together = logits_of(*transformer, {.rows = &rows, .visitor = visitor});
  std::vector<at::Tensor> one_at_a_time;
  for (const auto& text : kTexts) one_at_a_time.push_back(alone(*transformer, text));
  CHECK(difference(together, at::cat(one_at_a_time)) < kRounding);
}

TEST_CASE("continuing a cache gives what recomputing gives") {
  const auto transformer = any_tiny_model();
  const bool with_gradients = GENERATE(false, true);
  const bool explicit_attention = GENERATE(false, true);
  const c10::AutoGradMode mode(with_gradients);
  PatternReader reader;
  KeyValueCache cache;
  // Steps of several tokens, of one, of none, and of different lengths in one pass.
  const std::vector<std::vector<std::size_t>> ends = {{2, 1, 3, 2}, {3, 2, 4, 3}, {5, 2, 6, 3}, {6, 2, 6, 3}};
  std::vector<std::size_t> begins(kTexts.size(), 0);
  for (const std::vector<std::size_t>& end : ends) {
    std::vector<std::vector<std::int64_t>> tokens;
    std::vector<at::Tensor> expected;
    for (std::size_t row = 0; row < kTexts.size(); ++row) {
      tokens.push_back(part(kTexts[row], begins[row], end[row]));
      expected.push_back(
          alone(*transformer, kTexts[row])
              .narrow(0, static_cast<std::int64_t>(begins[row]), static_cast<std::int64_t>(end[row] - begins[row])));
    }
    const std::vector<Row> rows = test::rows_of(tokens);
    Pass pass{.rows = &rows, .cache = &cache, .visitor = explicit_attention ? &reader : nullptr};
    pass.append = false;
    CHECK(difference(logits_of(*transformer, pass), at::cat(expected)) < kRounding);
    CHECK(cache.length(0) == static_cast<std::int64_t>(begins[0]));
    pass.append = true;
    CHECK(difference(logits_of(*transformer, pass), at::cat(expected)) < kRounding);
    CHECK(cache.length(0) == static_cast<std::int64_t>(end[0]));
    begins = end;
  }
}

TEST_CASE("a forked cache stands for its tokens in every row, and rows can be selected") {
  const c10::NoGradGuard no_grad;
  const auto transformer = any_tiny_model();
  PatternReader reader;
  model::SiteVisitor* visitor = GENERATE(false, true) ? &reader : nullptr;
  const std::vector<std::int64_t> prefix = {5, 1, 60, 2, 2};
  const std::vector<Row> first = test::rows_of({part(prefix, 0, 3)}), second = test::rows_of({part(prefix, 3, 5)});
  KeyValueCache cache;
  transformer->forward({.rows = &first, .cache = &cache});
  transformer->forward({.rows = &second, .cache = &cache});

  const auto behind_prefix = [&](const std::vector<std::int64_t>& text, std::size_t skipped) {
    std::vector<std::int64_t> whole = prefix;
    whole.insert(whole.end(), text.begin(), text.end());
    return alone(*transformer, whole).slice(0, static_cast<std::int64_t>(prefix.size() + skipped));
  };
  KeyValueCache forked = cache.fork(static_cast<std::int64_t>(kTexts.size()));
  const std::vector<Row> rows = test::rows_of(kTexts);
  std::vector<at::Tensor> expected;
  for (const auto& text : kTexts) expected.push_back(behind_prefix(text, 0));
  const at::Tensor logits = logits_of(*transformer, {.rows = &rows, .cache = &forked, .visitor = visitor});
  CHECK(difference(logits, at::cat(expected)) < kRounding);
  CHECK(forked.length(1) == static_cast<std::int64_t>(prefix.size() + kTexts[1].size()));

  KeyValueCache selected = forked.select({2, 1});
  const std::vector<Row> next = test::rows_of({{11}, {12}});
  std::vector<std::int64_t> text2 = kTexts[2], text1 = kTexts[1];
  text2.push_back(11);
  text1.push_back(12);
  const at::Tensor decoded = logits_of(*transformer, {.rows = &next, .cache = &selected, .visitor = visitor});
  CHECK(difference(decoded, at::cat({behind_prefix(text2, kTexts[2].size()), behind_prefix(text1, kTexts[1].size())})) <
        kRounding);
}

TEST_CASE("every site fires once, in order, and a write there changes the logits") {
  const c10::NoGradGuard no_grad;
  const auto transformer = any_tiny_model();
  const std::vector<dsl::Site> sites = canonical_sites(transformer->card());
  const std::vector<Row> prompt = test::rows_of(kTexts), next = test::rows_of({{1}, {2}, {3}, {4}});
  const bool decoding = GENERATE(false, true);
  const auto run = [&](model::SiteVisitor* visitor) {
    KeyValueCache cache;
    if (decoding) transformer->forward({.rows = &prompt, .cache = &cache});
    return logits_of(*transformer, {.rows = decoding ? &next : &prompt, .cache = &cache, .visitor = visitor});
  };

  test::Recorder recorder;
  const at::Tensor clean = run(&recorder);
  REQUIRE(recorder.seen.size() == sites.size());
  for (std::size_t i = 0; i < sites.size(); ++i) CHECK(recorder.seen[i].first == sites[i]);

  for (const dsl::Site& site : sites) {
    CAPTURE(dsl::to_string(site), decoding);
    Writer in_place(site, [](at::Tensor& x) { x.mul_(1.5).narrow(-1, 0, 1).add_(0.5); });
    const at::Tensor changed = run(&in_place);
    CHECK(difference(changed, clean) > 1e-3);
    CHECK(in_place.calls == (site.kind == dsl::SiteKind::pattern ? 4 : 1));
    Writer replacing(site, [](at::Tensor& x) {
      x = x * 1.5;
      x.narrow(-1, 0, 1).add_(0.5);
    });
    CHECK(difference(run(&replacing), changed) < kRounding);
    at::Tensor kept;
    Writer reading(site, [&](at::Tensor& x) { kept = x; });
    CHECK(difference(run(&reading), clean) < kRounding);
    // What a visitor keeps is not written over by the layers that follow.
    for (const auto& [seen, values] : recorder.seen) {
      if (seen == site) CHECK(difference(kept, values.back()) < kRounding);
    }
  }
}

TEST_CASE("a pass stops after the site that it is told, and starts after a layer") {
  const c10::NoGradGuard no_grad;
  const auto transformer = any_tiny_model();
  const std::vector<Row> rows = test::rows_of(kTexts);
  test::Recorder whole;
  const at::Tensor clean = logits_of(*transformer, {.rows = &rows, .visitor = &whole});
  for (std::size_t i = 0; i < whole.seen.size(); ++i) {
    CAPTURE(dsl::to_string(whole.seen[i].first));
    test::Recorder stopped;
    transformer->forward(
        {.rows = &rows, .visitor = &stopped, .stop_after = whole.seen[i].first, .logits_at = std::nullopt});
    REQUIRE(stopped.seen.size() == i + 1);
  }
  Pass rest{.rows = &rows, .start_after = 0};
  for (const auto& [site, values] : whole.seen) {
    if (site == dsl::Site{dsl::SiteKind::resid_post, 0}) rest.start_values = values[0];
  }
  CHECK(difference(logits_of(*transformer, rest), clean) < kRounding);
}

TEST_CASE("later tokens are recomputed from a layer on, with gradients, over a cache that stays as it is") {
  const auto transformer = any_tiny_model();
  const std::size_t kept = 1;
  KeyValueCache cache;
  std::vector<std::vector<std::int64_t>> early, late;
  for (const auto& text : kTexts) {
    early.push_back(part(text, 0, kept));
    late.push_back(part(text, kept, text.size()));
  }
  const std::vector<Row> early_rows = test::rows_of(early), late_rows = test::rows_of(late),
                         rows = test::rows_of(kTexts);
  const dsl::Site start{dsl::SiteKind::resid_post, 0};
  at::Tensor values, clean;
  {
    const c10::NoGradGuard no_grad;
    transformer->forward({.rows = &early_rows, .cache = &cache});
    Writer reading(start, [&](at::Tensor& x) { values = x.clone(); });
    Pass pass{.rows = &late_rows, .cache = &cache, .append = false, .visitor = &reading};
    clean = logits_of(*transformer, pass);
  }
  const c10::AutoGradMode with_gradients(true);
  const auto loss_of = [&](const at::Tensor& from) {
    Pass pass{.rows = &late_rows, .cache = &cache, .append = false, .start_after = 0, .start_values = from};
    return logits_of(*transformer, pass);
  };
  const at::Tensor variable = values.clone().set_requires_grad(true);
  const at::Tensor logits = loss_of(variable);
  CHECK(difference(logits, clean) < kRounding);
  logits.square().sum().backward();
  // Along the gradient the loss moves most: in a random direction rounding may be as large as the change.
  const at::Tensor change =
      variable.grad() / variable.grad().norm() * (1e-3 * std::sqrt(static_cast<double>(values.numel())));
  const double predicted = (variable.grad() * change).sum().item<double>();
  const c10::NoGradGuard no_grad;
  const double up = loss_of(values + change).to(at::kDouble).square().sum().item<double>();
  const double down = loss_of(values - change).to(at::kDouble).square().sum().item<double>();
  CHECK(predicted == Approx((up - down) / 2).epsilon(0.02));
  CHECK(cache.length(0) == static_cast<std::int64_t>(kept));
}

TEST_CASE("a cache that lacks a layer is not continued there") {
  const c10::NoGradGuard no_grad;
  const auto transformer = any_tiny_model();
  const std::vector<Row> rows = test::rows_of({{1, 2}}), next = test::rows_of({{3}});
  KeyValueCache cache;
  const dsl::Site first_layer{dsl::SiteKind::resid_post, 0};
  transformer->forward({.rows = &rows, .cache = &cache, .stop_after = first_layer});
  CHECK_THROWS_AS(transformer->forward({.rows = &next, .cache = &cache}), std::logic_error);
  CHECK_NOTHROW(transformer->forward({.rows = &next, .cache = &cache, .stop_after = first_layer}));
}

TEST_CASE("only the logits asked for are computed, in order") {
  const c10::NoGradGuard no_grad;
  const auto transformer = any_tiny_model();
  const std::vector<Row> rows = test::rows_of(kTexts);
  const at::Tensor all = logits_of(*transformer, {.rows = &rows});
  CHECK(all.scalar_type() == at::kFloat);
  const std::vector<std::int64_t> wanted = {1, 6, 16};
  Pass pass{.rows = &rows, .logits_at = wanted};
  std::int64_t calls = 0;
  pass.on_logits = [&](std::int64_t first, const at::Tensor& logits) {
    ++calls;
    CHECK(first == 0);
    CHECK(difference(logits, all.index_select(0, at::tensor(wanted))) < kRounding);
  };
  transformer->forward(pass);
  CHECK(calls == 1);
  pass.logits_at = std::vector<std::int64_t>{};
  transformer->forward(pass);
  CHECK(calls == 1);
}

TEST_CASE("logits of many tokens come in chunks") {
  const c10::NoGradGuard no_grad;
  const auto transformer = any_tiny_model();
  const std::vector<Row> rows = test::rows_of(std::vector<std::vector<std::int64_t>>(100, kTexts[0]));
  Pass pass{.rows = &rows, .logits_at = std::nullopt};
  std::int64_t next = 0;
  pass.on_logits = [&](std::int64_t first, const at::Tensor& logits) {
    CHECK(first == next);
    next += logits.size(0);
    CHECK(logits.size(0) < 600);
  };
  transformer->forward(pass);
  CHECK(next == 600);
}

TEST_CASE("weights are put in place by name and undone to the same storage") {
  const c10::NoGradGuard no_grad;
  const auto transformer = any_tiny_model();
  const at::Tensor clean = alone(*transformer, kTexts[0]);
  for (const std::string& name : transformer->names()) {
    CAPTURE(name);
    const at::Tensor before = transformer->get(name);
    REQUIRE(before.defined());
    transformer->set(name, before + at::randn_like(before));
    CHECK(difference(alone(*transformer, kTexts[0]), clean) > 1e-4);
    transformer->set(name, before);
    CHECK(transformer->get(name).data_ptr() == before.data_ptr());
    CHECK(at::equal(alone(*transformer, kTexts[0]), clean));
  }
  CHECK_THROWS_AS(transformer->set("no.such.tensor", clean), model::InputError);
  CHECK_THROWS_AS(transformer->set(transformer->embedding_name(), at::zeros({2, 2})), model::InputError);
  CHECK_THROWS_AS(transformer->set(transformer->embedding_name(), {}), model::InputError);
}

TEST_CASE("a change of a tied embedding unties the unembedding, and undoing it ties them again") {
  const c10::NoGradGuard no_grad;
  const auto transformer = test::load_tiny_model("llama_linear_tied");
  REQUIRE(transformer->tied());
  const at::Tensor embedding = transformer->get(transformer->embedding_name());
  const std::size_t tensors = transformer->names().size();
  transformer->set(transformer->embedding_name(), embedding * 2);
  CHECK_FALSE(transformer->tied());
  CHECK(at::equal(transformer->get(transformer->unembedding_name()), embedding));
  CHECK(transformer->names().size() == tensors + 1);
  transformer->set(transformer->embedding_name(), embedding);
  CHECK(transformer->tied());
  CHECK(transformer->names().size() == tensors);
}

TEST_CASE("a writer's weight and bias make the site, also a bias that the model lacked") {
  const c10::NoGradGuard no_grad;
  const auto transformer = any_tiny_model();
  const auto kind = GENERATE(dsl::SiteKind::attn_out, dsl::SiteKind::mlp_out);
  const dsl::Site site{kind, 1};
  const auto writer = transformer->writer(site);
  CHECK(writer.has_value() != transformer->card().norms_writers());
  if (!writer) return;
  const std::vector<Row> rows = test::rows_of(kTexts);
  const auto read = [&](dsl::Site place) {
    at::Tensor value;
    Writer reading(place, [&](at::Tensor& x) { value = x; });
    transformer->forward({.rows = &rows, .visitor = &reading});
    return value;
  };
  const at::Tensor input = read({kind == dsl::SiteKind::attn_out ? dsl::SiteKind::z : dsl::SiteKind::mlp_post, 1});
  const at::Tensor bias = transformer->get(writer->bias);
  at::Tensor expected = at::matmul(input, transformer->get(writer->weight).t());
  if (bias.defined()) expected = expected + bias;
  CHECK(difference(read(site), expected) < kRounding);

  if (writer->bias.empty()) return;  // a family without one
  const at::Tensor added = at::randn({transformer->config().width});
  transformer->set(writer->bias, bias.defined() ? bias + added : added);
  CHECK(difference(read(site), expected + added) < kRounding);
  transformer->set(writer->bias, bias);
  CHECK(difference(read(site), expected) < kRounding);
}

TEST_CASE("bfloat16 stays near float32") {
  const c10::NoGradGuard no_grad;
  const std::string name = GENERATE(from_range(test::kTinyModels));
  CAPTURE(name);
  const auto exact = test::load_tiny_model(name), rounded = test::load_tiny_model(name, at::kBFloat16);
  const std::vector<Row> rows = test::rows_of(kTexts);
  const at::Tensor expected = logits_of(*exact, {.rows = &rows});
  const at::Tensor logits = logits_of(*rounded, {.rows = &rows});
  CHECK((logits - expected).norm().item<double>() < 0.05 * expected.norm().item<double>());
}

TEST_CASE("what does not fit the model is refused by name") {
  const auto transformer = any_tiny_model();
  const std::int64_t context = transformer->config().context;
  const std::vector<Row> long_row =
      test::rows_of({std::vector<std::int64_t>(static_cast<std::size_t>(context + 1), 1)});
  CHECK_THROWS_WITH(transformer->forward({.rows = &long_row}),
                    Catch::Contains("context of " + std::to_string(context)));
  const std::vector<Row> unknown = test::rows_of({{1, 64}});
  CHECK_THROWS_WITH(transformer->forward({.rows = &unknown}), Catch::Contains("token 64"));
}

TEST_CASE("a model too large for the machine is refused before anything is allocated") {
  model::ModelCard card = model::read_model_card(test::tiny_model_path("llama_linear_tied"));
  for (model::CardTensor& tensor : card.tensors) {
    tensor.stored.type = model::ElementType::bf16;
    for (std::int64_t& size : tensor.stored.shape) size *= 1'000'000;
  }
  CHECK_THROWS_AS(model::Transformer::load(card, {}), model::MachineError);
}
