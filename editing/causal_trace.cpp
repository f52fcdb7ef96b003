#include "editing/causal_trace.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>

#include "editing/site_capture.hpp"
#include "editing/target_score.hpp"
#include "runtime/model/random.hpp"

namespace proviso::editing {
namespace {

using dsl::Site;
using dsl::SiteKind;

constexpr std::int64_t kNoises = 10;
constexpr double kNoiseDeviations = 3;
constexpr double kLeastShare = 1e-3;        // of what the noise takes: less is rounding
constexpr double kWindowShare = 10.0 / 48;  // of the layers: the paper's ten of GPT-2 XL, as one MLP gives back little

at::Tensor normal(at::IntArrayRef shape, model::NormalSource& random) {
  auto values = at::empty(shape, at::kDouble);
  auto* out = values.mutable_data_ptr<double>();
  for (std::int64_t i = 0; i < values.numel(); ++i) out[i] = random.next();
  return values;
}

/// Adds noise to the embeddings of some packed positions, and keeps what some sites hold.
class Corruption : public SiteCapture {
 public:
  Corruption(const std::vector<Site>& sites, at::Tensor positions, at::Tensor noise)
      : SiteCapture(sites), positions_(std::move(positions)), noise_(std::move(noise)) {}
  bool wants(const Site& site) const override { return site.kind == SiteKind::embed || SiteCapture::wants(site); }
  void visit(const Site& site, at::Tensor& x, const model::PackedLayout& layout) override {
    if (site.kind == SiteKind::embed)
      x = x.index_add(0, positions_.to(x.device()), noise_.to(x.device(), x.scalar_type()));
    if (SiteCapture::wants(site)) SiteCapture::visit(site, x, layout);
  }

 private:
  at::Tensor positions_;  // [m] int64
  at::Tensor noise_;      // [m, width]
};

/// Puts back what the MLPs of some layers wrote at a position, in packed rows of it.
class Restoration : public model::SiteVisitor {
 public:
  struct Layers {
    std::int64_t first, end;
  };
  Restoration(const SiteCapture& clean, Layers layers, std::int64_t position, at::Tensor rows)
      : clean_(clean), layers_(layers), position_(position), rows_(std::move(rows)) {}
  bool wants(const Site& site) const override {
    return site.kind == SiteKind::mlp_out && site.layer >= layers_.first && site.layer < layers_.end;
  }
  void visit(const Site& site, at::Tensor& x, const model::PackedLayout&) override {
    x = x.index_copy(0, rows_, clean_.at(site).narrow(0, position_, 1).expand({rows_.size(0), -1}));
  }

 private:
  const SiteCapture& clean_;
  Layers layers_;
  std::int64_t position_;
  at::Tensor rows_;  // [m] int64
};

/// One fact: a row of the prompt and all of its answer but the last token.
struct Question {
  SubjectPrompt prompt;
  std::vector<std::int64_t> answer;
  model::Row row;
};

Question question(const model::Transformer& transformer, const model::Tokenizer& tokenizer, const TracedFact& fact) {
  const auto slot = fact.prompt_template.find("{}");
  Question made;
  made.prompt = locate_subject(tokenizer, fact.prompt_template.substr(0, slot), fact.subject,
                               fact.prompt_template.substr(slot + 2));
  const auto& tokens = made.prompt.tokens;
  made.row = {tokens, std::ssize(tokens)};
  if (fact.answer.empty()) {
    const std::vector<model::Row> rows{made.row};
    model::Pass pass;
    pass.rows = &rows;
    pass.logits_at = std::vector<std::int64_t>{std::ssize(tokens) - 1};
    pass.on_logits = [&](std::int64_t, const at::Tensor& logits) {
      made.answer = {logits[0].argmax().item<std::int64_t>()};
    };
    transformer.forward(pass);
  } else {
    made.answer = tokenizer.encode(fact.answer);
  }
  made.row.tokens.insert(made.row.tokens.end(), made.answer.begin(), made.answer.end() - 1);
  return made;
}

/// The answer's probability at the end of a pass over equal rows of the question, mean over them; the pass goes as
/// `prepare` says.
template <class Prepare>
double probability(const model::Transformer& transformer, const Question& asked, std::int64_t rows, Prepare prepare) {
  const std::vector<model::Row> packed(rows, asked.row);
  const auto length = std::ssize(asked.row.tokens), targets = std::ssize(asked.answer);
  std::vector<std::int64_t> logits_at;
  for (std::int64_t row = 0; row < rows; ++row)
    for (std::int64_t t = 0; t < targets; ++t) logits_at.push_back(row * length + length - targets + t);
  std::vector<at::Tensor> chunks;
  model::Pass pass;
  pass.rows = &packed;
  pass.logits_at = logits_at;
  pass.on_logits = [&](std::int64_t, const at::Tensor& logits) { chunks.push_back(logits.to(at::kDouble)); };
  prepare(pass);
  transformer.forward(pass);
  const auto log_probabilities = at::cat(chunks).log_softmax(-1);
  const auto wanted = at::tensor(asked.answer, at::device(log_probabilities.device()).dtype(at::kLong)).repeat({rows});
  return log_probabilities.gather(1, wanted.unsqueeze(1)).view({rows, targets}).sum(1).exp().mean().item<double>();
}

/// Adds one fact's effects to `trace`, weighing `share`.
void add_trace(const model::Transformer& transformer, const Question& asked, double deviation, double share,
               model::NormalSource& random, CausalTrace& trace) {
  const auto layers = transformer.config().layers;
  const auto length = std::ssize(asked.row.tokens);
  std::vector<Site> written, streams = {{SiteKind::embed}};
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    written.push_back({SiteKind::mlp_out, layer});
    streams.push_back({SiteKind::resid_post, layer});
  }
  SiteCapture clean(written);
  trace.clean += share * probability(transformer, asked, 1, [&](model::Pass& pass) { pass.visitor = &clean; });

  std::vector<std::int64_t> positions, last;
  for (std::int64_t row = 0; row < kNoises; ++row) {
    for (auto t = asked.prompt.subject_first; t <= asked.prompt.subject_last; ++t)
      positions.push_back(row * length + t);
    last.push_back(row * length + asked.prompt.subject_last);
  }
  const auto noise =
      kNoiseDeviations * deviation * normal({std::ssize(positions), clean.at({SiteKind::mlp_out, 0}).size(1)}, random);
  Corruption corrupted(streams, at::tensor(positions, at::kLong), noise);
  const double after_noise =
      probability(transformer, asked, kNoises, [&](model::Pass& pass) { pass.visitor = &corrupted; });
  trace.corrupted += share * after_noise;

  // The stream below the first layer that is put back is the corrupted one, and is not computed again.
  const auto window = std::max<std::int64_t>(1, std::llround(kWindowShare * static_cast<double>(layers)));
  const auto rows = at::tensor(last, at::device(clean.at(written.front()).device()).dtype(at::kLong));
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    const Restoration::Layers around = {std::max<std::int64_t>(0, layer - window / 2),
                                        std::min(layers, layer + (window + 1) / 2)};
    Restoration restoration(clean, around, asked.prompt.subject_last, rows);
    const double restored = probability(transformer, asked, kNoises, [&](model::Pass& pass) {
      pass.start_after = around.first - 1;
      pass.start_values = corrupted.at(streams[around.first]);
      pass.visitor = &restoration;
    });
    trace.indirect_effects[layer] += share * (restored - after_noise);
  }
}

}  // namespace

NamedNumbers CausalTrace::numbers() const {
  NamedNumbers named = {{"traced_probability", clean}, {"traced_probability_corrupted", corrupted}};
  for (std::size_t layer = 0; layer < indirect_effects.size(); ++layer)
    named.emplace_back("indirect_effect_layer_" + std::to_string(layer), indirect_effects[layer]);
  return named;
}

std::variant<CausalTrace, Refusal> causal_trace(const model::Transformer& transformer,
                                                const model::Tokenizer& tokenizer, const std::vector<TracedFact>& facts,
                                                std::uint64_t seed) {
  const at::NoGradGuard no_grad;
  std::vector<Question> questions;
  std::vector<at::Tensor> embeddings;
  for (const auto& fact : facts) {
    questions.push_back(question(transformer, tokenizer, fact));
    const std::vector<model::Row> rows{questions.back().row};
    SiteCapture capture({Site{SiteKind::embed}});
    model::Pass pass;
    pass.rows = &rows;
    pass.visitor = &capture;
    pass.stop_after = Site{SiteKind::embed};
    transformer.forward(pass);
    const auto& prompt = questions.back().prompt;
    embeddings.push_back(capture.at({SiteKind::embed})
                             .narrow(0, prompt.subject_first, prompt.subject_last - prompt.subject_first + 1)
                             .to(at::kDouble));
  }
  const double deviation = at::cat(embeddings).std().item<double>();

  model::NormalSource random(seed);
  CausalTrace trace;
  trace.indirect_effects.resize(transformer.config().layers);
  for (const auto& asked : questions)
    add_trace(transformer, asked, deviation, 1 / static_cast<double>(questions.size()), random, trace);
  const auto most = std::ranges::max_element(trace.indirect_effects);
  trace.layer = most - trace.indirect_effects.begin();
  if (!(trace.corrupted < trace.clean) || !(*most > kLeastShare * (trace.clean - trace.corrupted)))
    return Refusal{
        "causal tracing does not find where the model holds this: with the subject corrupted the answer's "
        "probability goes from " +
        short_text(trace.clean) + " to " + short_text(trace.corrupted) +
        ", and no layer gives any of it back; name the layer"};
  return trace;
}

}  // namespace proviso::editing
