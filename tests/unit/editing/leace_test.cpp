#include "editing/leace.hpp"

#include <ATen/ATen.h>

#include <catch2/catch.hpp>

#include "tests/support/random_model.hpp"

using namespace proviso;
using namespace proviso::test;
using editing::ClassMoments;
using editing::Eraser;

namespace {

/// Vectors of correlated coordinates, three classes apart along two directions.
struct Sample {
  at::Tensor x = random_tensor({90, 8}, 1).mm(random_tensor({8, 8}, 2)) + 3;  // [n, width]
  at::Tensor labels = at::arange(90, at::kLong).remainder(3);
  Sample() { x = x + at::one_hot(labels, 3).to(at::kDouble).mm(random_tensor({3, 8}, 3)); }

  ClassMoments moments() const {
    ClassMoments moments(8, 3);
    moments.add(x.narrow(0, 0, 31), labels.narrow(0, 0, 31));
    moments.add(x.narrow(0, 31, 59), labels.narrow(0, 31, 59));
    return moments;
  }
};

at::Tensor erased(const Eraser& eraser, const at::Tensor& x) {
  const auto& [write, read, constant] = eraser.change;
  return x + (constant - x.mm(read.t())).mm(write.t());
}

at::Tensor covariance(const at::Tensor& x) { return (x - x.mean(0)).t().mm(x - x.mean(0)) / (x.size(0) - 1.0); }

}  // namespace

TEST_CASE("moments gathered in batches are those of all vectors at once") {
  const Sample sample;
  const auto moments = sample.moments();
  const auto z = at::one_hot(sample.labels, 3).to(at::kDouble);
  CHECK(moments.count() == 90);
  CHECK(at::allclose(moments.mean(), sample.x.mean(0), 1e-12, 1e-12));
  CHECK(at::allclose(moments.covariance(), covariance(sample.x), 1e-12, 1e-12));
  CHECK(at::allclose(moments.cross_covariance(), (sample.x - sample.x.mean(0)).t().mm(z - z.mean(0)) / 89.0, 1e-12,
                     1e-12));
}

TEST_CASE("a covariance is shrunk to its mean variance: all the way where there are few vectors, hardly where many") {
  const auto S = covariance(random_tensor({50, 6}, 4).mm(random_tensor({6, 6}, 5)));
  const auto few = editing::shrunk_covariance(S, 1), many = editing::shrunk_covariance(S, 1000000);
  CHECK(few.share == 1);
  CHECK(at::allclose(few.value, S.trace() / 6 * at::eye(6, at::kDouble)));
  CHECK(many.share < 1e-4);
  CHECK(few.value.trace().item<double>() == Approx(S.trace().item<double>()));
  CHECK(many.value.trace().item<double>() == Approx(S.trace().item<double>()));
}

TEST_CASE("after the erasure every class has the mean of all, and no other map of its kind moves less") {
  const Sample sample;
  const auto made = editing::leace(sample.moments(), 1e-9, {});
  const auto& eraser = std::get<Eraser>(made);
  CHECK(eraser.change.write.size(1) == 2);  // three classes differ along two directions
  const auto y = erased(eraser, sample.x);
  CHECK(at::allclose(y.mean(0), sample.x.mean(0)));
  for (std::int64_t label = 0; label < 3; ++label)
    CHECK(at::allclose(y.index({sample.labels == label}).mean(0), sample.x.mean(0), 1e-9, 1e-9));
  // Erasing twice is erasing once.
  CHECK(at::allclose(erased(eraser, y), y, 1e-9, 1e-9));

  // The shrunk covariance says what counts as near: R' = R + E with E V = 0 erases as well, and moves more.
  REQUIRE(eraser.least_change_share == 1);
  const auto S = editing::shrunk_covariance(sample.moments().covariance(), 90).value;
  const auto& [V, R, constant] = eraser.change;
  const auto moved = [&](const at::Tensor& by) { return by.mm(S).mul(by).sum().item<double>(); };
  for (std::uint64_t seed = 10; seed < 20; ++seed) {
    const auto E = 0.1 * random_tensor({2, 8}, seed);
    CHECK(moved(R + E - E.mm(V).mm(V.t())) > moved(R));
  }
}

TEST_CASE("an erasure reads nothing of the sinks, and where the classes differ only there it is refused") {
  const Sample sample;
  const auto sinks = std::get<0>(at::linalg_qr(random_tensor({8, 1}, 6))).t().contiguous();
  const auto made = editing::leace(sample.moments(), 1e-9, sinks);
  const auto& eraser = std::get<Eraser>(made);
  CHECK(eraser.change.read.mm(sinks.t()).norm().item<double>() < 1e-9);
  const auto y = erased(eraser, sample.x);
  for (std::int64_t label = 0; label < 3; ++label)
    CHECK(at::allclose(y.index({sample.labels == label}).mean(0), sample.x.mean(0), 1e-9, 1e-9));

  const auto difference = sample.x.index({sample.labels == 0}).mean(0) - sample.x.index({sample.labels == 1}).mean(0);
  ClassMoments two(8, 2);
  const auto some = sample.labels < 2;
  two.add(sample.x.index({some}), sample.labels.index({some}));
  const auto along = (difference / difference.norm()).unsqueeze(0);
  CHECK(std::holds_alternative<editing::Refusal>(editing::leace(two, 1e-9, along)));
}

TEST_CASE("the total variance never grows, also where two nearly equal coordinates differ by class") {
  // The classes differ along e0 − e1, along which there is hardly any variance, beside a large one along e0 + e1.
  const auto labels = at::arange(400, at::kLong).remainder(2);
  auto x = random_tensor({400, 1}, 7) * at::tensor({10.0, 9.0, 0.0}, at::kDouble) + 0.01 * random_tensor({400, 3}, 8);
  x = x + labels.to(at::kDouble).unsqueeze(1) * at::tensor({0.0, 0.0, 0.5}, at::kDouble) +
      labels.to(at::kDouble).unsqueeze(1) * at::tensor({0.0, 0.3, 0.0}, at::kDouble);
  ClassMoments moments(3, 2);
  moments.add(x, labels);
  const auto made = editing::leace(moments, 1e-9, {});
  const auto y = erased(std::get<Eraser>(made), x);
  CHECK(covariance(y).trace().item<double>() <= covariance(x).trace().item<double>() * (1 + 1e-6));
}

TEST_CASE("where the classes tell nothing the erasure has rank 0") {
  const Sample sample;
  ClassMoments moments(8, 2);
  const auto both = at::cat({sample.x, sample.x});
  moments.add(both, at::cat({at::zeros({90}, at::kLong), at::ones({90}, at::kLong)}));
  CHECK(std::get<Eraser>(editing::leace(moments, 0.01, {})).change.write.size(1) == 0);
}
