#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <vector>

#include "runtime/model/transformer.hpp"

namespace proviso::editing {

/// Keeps copies of what flows through some sites.
class SiteCapture : public model::SiteVisitor {
 public:
  explicit SiteCapture(const std::vector<dsl::Site>& sites) {
    for (const auto& site : sites) values_.emplace(dsl::canonical(site), at::Tensor());
  }
  bool wants(const dsl::Site& site) const override { return values_.contains(site); }
  void visit(const dsl::Site& site, at::Tensor& x, const model::PackedLayout&) override { values_[site] = x.clone(); }

  /// As of the last pass: [n, width].
  const at::Tensor& at(const dsl::Site& site) const { return values_.at(dsl::canonical(site)); }

 private:
  std::map<dsl::Site, at::Tensor> values_;
};

}  // namespace proviso::editing
