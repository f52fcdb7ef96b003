#include "editing/last_values.hpp"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "editing/second_moments.hpp"
#include "editing/site_capture.hpp"
#include "runtime/model/pass_groups.hpp"
#include "runtime/model/sinks.hpp"

namespace proviso::editing {

LastValues last_values(const model::Transformer& transformer, const std::vector<model::Row>& rows,
                       const dsl::Site& site) {
  const at::NoGradGuard no_grad;
  const auto stream = model::sink_site(site, transformer.config());
  std::vector<at::Tensor> values, ordinary;
  for (const auto& [begin, end] :
       model::pass_groups(rows.size(), [&](std::size_t i) { return std::ssize(rows[i].tokens); })) {
    const std::vector<model::Row> some(rows.begin() + begin, rows.begin() + end);
    SiteCapture capture({site, stream});
    model::Pass pass;
    pass.rows = &some;
    pass.visitor = &capture;
    pass.stop_after = std::max(dsl::canonical(site), dsl::canonical(stream));
    const auto layout = transformer.forward(pass);
    std::vector<std::int64_t> ends;
    for (const auto& span : layout.rows) ends.push_back(span.begin + span.length - 1);
    const auto& x = capture.at(site);
    const auto last = at::tensor(ends, at::device(x.device()).dtype(at::kLong));
    values.push_back(x.index_select(0, last).to(at::kDouble));
    ordinary.push_back(ordinary_positions(capture.at(stream), layout).index_select(0, last));
  }
  return {at::cat(values), at::cat(ordinary)};
}

}  // namespace proviso::editing
