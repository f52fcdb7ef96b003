#pragma once

// Whole activations that give way to others: circuits suppressed, and patches.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "dsl/rule_set.hpp"
#include "runtime/activity.hpp"
#include "runtime/circuits/source_means.hpp"
#include "runtime/condition.hpp"
#include "runtime/model/transformer.hpp"

namespace proviso::runtime {

/// One place whose activation is replaced.
struct ReplacedPart {
  std::size_t number = 0;             ///< the replacement that it belongs to, in the order of adding
  dsl::Site site;                     ///< canonical; of one head, or whole
  std::int64_t begin = 0, width = 0;  ///< in the whole site's width
  double share = 1;
  bool of_change = false;                ///< belongs to an `effect`'s change: a control replaces it
  bool direct = false;                   ///< the change goes to the last layer's output alone, and nothing else sees it
  std::optional<std::size_t> condition;  ///< in the program's ConditionSet
  /// [width] float32, at every position from 1 on. Undefined: what donors had, from position 0 on, or where it is
  /// `resampled` from 1 on, generated positions taking what they had at the last.
  at::Tensor value;
  bool resampled = false;
};

/// Everything that is replaced in the passes of one model state. Built once, then immutable.
class ReplacementProgram {
 public:
  explicit ReplacementProgram(const model::Transformer& transformer)
      : transformer_(transformer), graph_(transformer.config()) {}

  /// Suppresses a circuit from position 1 on: of one of nodes, what its heads and MLPs write becomes its mean on the
  /// corrupt prompts; of one of edges, what those carry does, and all other readers see what is written. What several
  /// circuits hold follows the first of them. Position 0, the attention sink, stays as it is. Returns its number.
  std::size_t add(const CircuitParts& circuit, double share, bool of_change);
  /// Patches whole sites, each with its value, or (where that is undefined) with what donors had there. Of `part`
  /// counts what all share: condition, of_change, direct, resampled.
  std::size_t add(const std::vector<dsl::Site>& sites, const std::vector<at::Tensor>& values, ReplacedPart part);

  std::size_t count() const { return count_; }
  /// Where each replacement acts: sites of its parts, and those that stand for the readers of its edges.
  const std::set<dsl::Site>& places(std::size_t number) const { return places_[number]; }
  bool has_edges() const { return !edges_.empty(); }
  const std::vector<ReplacedPart>& parts() const { return parts_; }

 private:
  friend class ReplacementPass;
  struct Edge {
    std::size_t number = 0;
    double share = 1;
    bool of_change = false;
    dsl::Site source;  ///< embed, a head's part of z, mlp_out
    at::Tensor mean;   // [width of `source`] float32: what is there without the behaviour
  };
  /// A reader as a site, with the head where it has one: "k[3] head 2", "mlp_pre[4]", "final_norm".
  static dsl::Site reader_site(const CircuitGraph::Reading& reading);
  void add_part(ReplacedPart part);

  const model::Transformer& transformer_;
  CircuitGraph graph_;
  std::size_t count_ = 0;
  std::vector<ReplacedPart> parts_;
  std::map<std::int64_t, std::map<std::int64_t, Edge>> edges_;  // by destination, then source
  std::set<std::int64_t> sources_;                              // of edges
  std::vector<std::set<dsl::Site>> places_;
};

/// Replaces in forward passes, and keeps what it saw. Where edges are suppressed it is the pass's reader, too.
class ReplacementPass : public model::StreamReader {
 public:
  explicit ReplacementPass(const ReplacementProgram& program);

  /// What the prompt of a pass's row is patched from at a part: [positions, width] float32, or undefined.
  using Donors = std::function<at::Tensor(std::size_t part, std::size_t row)>;
  void set_donors(Donors donors) { donors_ = std::move(donors); }
  void set_control(const ControlChange* control) { control_ = control; }
  void measure_changes(bool on) { measure_ = on; }

  void begin();
  bool wants(const dsl::Site& site) const;
  using Holds = std::function<const Mask&(std::size_t condition)>;
  /// After all hooks of the site have written.
  void visit(const dsl::Site& site, at::Tensor& x, const model::PackedLayout& layout, const Holds& holds);
  at::Tensor input(dsl::SiteKind reader, std::int64_t layer, const at::Tensor& stream) override;

  /// Of the last pass, by packed token: whether a replacement changed a vector there; empty where it never came to act.
  const Mask& moved(std::size_t number) const { return moved_[number]; }
  const std::map<dsl::Site, std::vector<float>>& change_norms() const { return change_norms_; }
  /// Over all passes. Its activation is ‖x − what replaces it‖.
  const std::map<dsl::Site, Activity>& activity(std::size_t number) const { return activity_[number]; }

 private:
  struct Acting {
    at::Tensor target;  // [n, width]
    at::Tensor mask;    // [n, 1] float32: 1 where it acts
  };
  Acting acting(std::size_t index, const at::Tensor& x, const Holds& holds) const;
  at::Tensor after_first(at::Device device) const;  // [n, 1] float32: 0 at position 0
  /// Counts a change of `x` at a place.
  void count(std::size_t number, const dsl::Site& place, const at::Tensor& x, const at::Tensor& distance,
             const at::Tensor& mask, const at::Tensor& change);
  /// What is added for an effect's change: itself, measured, or what a control puts there; undefined: nothing.
  at::Tensor exchanged(const dsl::Site& place, const at::Tensor& change);
  void keep_written(const dsl::Site& site, const at::Tensor& x);
  /// What is added to the stream by a change of a part of z, or of what is added itself.
  at::Tensor in_stream(const dsl::Site& site, const at::Tensor& change) const;

  const ReplacementProgram& program_;
  const ControlChange* control_ = nullptr;
  bool measure_ = false;
  Donors donors_;
  const model::PackedLayout* layout_ = nullptr;
  at::Tensor pending_;                      // [n, width]: direct changes, until the last layer's output
  std::map<std::int64_t, at::Tensor> own_;  // by source of edges: what it adds to the stream
  std::vector<Mask> moved_;
  std::map<dsl::Site, std::vector<float>> change_norms_;
  std::vector<std::map<dsl::Site, Activity>> activity_;
};

}  // namespace proviso::runtime
