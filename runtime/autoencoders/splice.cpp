#include "runtime/autoencoders/splice.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "editing/second_moments.hpp"
#include "runtime/autoencoders/activations.hpp"
#include "runtime/model/reading_visitor.hpp"
#include "runtime/model/sinks.hpp"

namespace proviso::runtime {

namespace {

/// Puts the reconstruction, or the mean, in place of what stands at ordinary positions; or takes the mean.
class Splice : public model::ReadingVisitor {
 public:
  enum class Puts { nothing, reconstruction, mean };

  Splice(const Autoencoder& autoencoder, const model::ModelCard& card)
      : autoencoder_(autoencoder),
        read_(dsl::whole(autoencoder.card().site)),
        written_(dsl::whole(autoencoder.card().written)),
        norm_site_(model::sink_site(written_, card.config)),
        read_part_(site_part(card, autoencoder.card().site)),
        written_part_(site_part(card, autoencoder.card().written)) {}

  Puts puts = Puts::nothing;
  model::SiteVisitor* inner = nullptr;

  const dsl::Site& last() const { return written_; }
  void finish_mean() {
    if (count_ == 0) throw model::InputError("the texts hold no position but attention sinks: lengthen them");
    mean_ = (sum_ / static_cast<double>(count_)).to(at::kFloat);
  }

  model::StreamReader* reader() override {
    auto* reading = dynamic_cast<model::ReadingVisitor*>(inner);
    return reading ? reading->reader() : nullptr;
  }
  bool wants(const dsl::Site& site) const override {
    return site == read_ || site == written_ || site == norm_site_ || (inner && inner->wants(site));
  }

  void visit(const dsl::Site& site, at::Tensor& x, const model::PackedLayout& layout) override {
    if (inner && inner->wants(site)) inner->visit(site, x, layout);
    if (site == norm_site_) ordinary_ = editing::ordinary_positions(x, layout).nonzero().squeeze(1);
    if (site == read_ && puts == Puts::reconstruction) {
      input_ = x.narrow(1, read_part_.begin, read_part_.width).index_select(0, ordinary_).clone();
    }
    if (site != written_) return;
    auto part = x.narrow(1, written_part_.begin, written_part_.width);
    if (puts == Puts::nothing) {
      const auto kept = part.index_select(0, ordinary_).to(at::kDouble);
      sum_ = sum_.defined() ? sum_ + kept.sum(0) : kept.sum(0);
      count_ += kept.size(0);
      return;
    }
    const auto spliced =
        puts == Puts::mean ? mean_.expand({ordinary_.size(0), part.size(1)}) : autoencoder_.reconstruct(input_);
    x = x.clone();
    x.narrow(1, written_part_.begin, written_part_.width).index_copy_(0, ordinary_, spliced.to(x.scalar_type()));
  }

 private:
  const Autoencoder& autoencoder_;
  const dsl::Site read_, written_, norm_site_;
  const SitePart read_part_, written_part_;
  at::Tensor ordinary_;  // [m] int64
  at::Tensor input_;     // [m, d_in]
  at::Tensor sum_, mean_;
  std::int64_t count_ = 0;
};

/// Adds the losses of some rows in one pass.
void add_losses(const model::Transformer& transformer, const std::vector<model::Row>& rows, model::SiteVisitor* visitor,
                std::vector<double>& into) {
  std::vector<std::int64_t> at, targets, owner;
  std::int64_t packed = 0;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    for (std::size_t i = 0; i + 1 < rows[r].tokens.size(); ++i) {
      at.push_back(packed + static_cast<std::int64_t>(i));
      targets.push_back(rows[r].tokens[i + 1]);
      owner.push_back(static_cast<std::int64_t>(into.size() + r));
    }
    packed += std::ssize(rows[r].tokens);
  }
  into.resize(into.size() + rows.size(), 0.0);
  model::Pass pass;
  pass.rows = &rows;
  pass.visitor = visitor;
  pass.logits_at = at;
  pass.on_logits = [&](std::int64_t first, const at::Tensor& logits) {
    const auto values = logits.cpu();
    const auto wanted = at::tensor(
        at::ArrayRef(targets).slice(static_cast<std::size_t>(first), static_cast<std::size_t>(values.size(0))));
    const auto loss = (at::logsumexp(values, at::IntArrayRef{1}) - values.gather(1, wanted.unsqueeze(1)).squeeze(1))
                          .to(at::kDouble)
                          .contiguous();
    for (std::int64_t i = 0; i < loss.size(0); ++i)
      into[static_cast<std::size_t>(owner[static_cast<std::size_t>(first + i)])] += loss.const_data_ptr<double>()[i];
  };
  transformer.forward(pass);
}

}  // namespace

std::vector<SplicedLoss> spliced_losses(const model::Transformer& transformer, const Autoencoder& autoencoder,
                                        const std::vector<model::Row>& rows, const VisitorOfRows& visitor) {
  const at::NoGradGuard no_grad;
  Splice splice(autoencoder, transformer.card());
  const auto open = [&](std::size_t first, std::size_t count) {
    splice.inner = visitor ? visitor(first, count) : nullptr;
    return some_rows(rows, first, count);
  };
  each_pass(rows, [&](std::size_t first, std::size_t count) {
    const auto part = open(first, count);
    model::Pass pass;
    pass.rows = &part;
    pass.visitor = &splice;
    pass.stop_after = splice.last();
    transformer.forward(pass);
  });
  splice.finish_mean();
  const auto losses = [&](Splice::Puts puts) {
    splice.puts = puts;
    std::vector<double> losses;
    each_pass(rows, [&](std::size_t first, std::size_t count) {
      add_losses(transformer, open(first, count), &splice, losses);
    });
    return losses;
  };
  const auto reconstructed = losses(Splice::Puts::reconstruction), ablated = losses(Splice::Puts::mean);
  std::vector<SplicedLoss> result;
  for (std::size_t i = 0; i < rows.size(); ++i) result.push_back({reconstructed[i], ablated[i]});
  return result;
}

std::vector<double> text_losses(const model::Transformer& transformer, const std::vector<model::Row>& rows) {
  const at::NoGradGuard no_grad;
  std::vector<double> losses;
  each_pass(rows, [&](std::size_t first, std::size_t count) {
    add_losses(transformer, some_rows(rows, first, count), nullptr, losses);
  });
  return losses;
}

double loss_recovered(const std::vector<double>& clean, const std::vector<SplicedLoss>& spliced) {
  double lost = 0, whole = 0;
  for (std::size_t i = 0; i < clean.size(); ++i) {
    lost += spliced[i].reconstructed - clean[i];
    whole += spliced[i].ablated - clean[i];
  }
  return 1 - lost / whole;
}

}  // namespace proviso::runtime
