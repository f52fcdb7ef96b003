#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "dsl/site.hpp"
#include "runtime/model/model_card.hpp"

namespace proviso::model {

/// One sequence's new tokens in a pass. Rows of different lengths are packed, never padded.
struct Row {
  std::vector<std::int64_t> tokens;
  std::int64_t prompt_length = 0;  ///< of the whole sequence's prompt, from position 0; what follows is generated
};

/// How the rows of a pass lie in its packed tensors, whose first dimension is the token: n in all.
struct PackedLayout {
  struct RowSpan {
    std::int64_t begin = 0;  ///< of this row's first token here
    std::int64_t length = 0;
    std::int64_t first_position = 0;  ///< in the sequence: the number of tokens in the cache before
    std::int64_t prompt_length = 0;
  };
  std::vector<RowSpan> rows;
  at::Tensor tokens;     // [n] int64
  at::Tensor positions;  // [n] int64, in the sequence
  at::Tensor row_of;     // [n] int64

  std::int64_t size() const { return tokens.size(0); }
};

/// Keys and values of the tokens passed so far, a row each.
class KeyValueCache {
 public:
  KeyValueCache();
  ~KeyValueCache();
  KeyValueCache(KeyValueCache&&) noexcept;
  KeyValueCache& operator=(KeyValueCache&&) noexcept;

  /// `count` rows that all continue this cache's single row, sharing its memory.
  KeyValueCache fork(std::int64_t count) const;
  /// Only these rows, in this order (a finished generation leaves its batch).
  KeyValueCache select(const std::vector<std::int64_t>& rows) const;
  std::int64_t length(std::int64_t row) const;  ///< tokens held
  std::int64_t rows() const;

  struct State;
  std::unique_ptr<State> state;
};

/// Sees, and may change, what flows through a pass.
class SiteVisitor {
 public:
  virtual ~SiteVisitor() = default;
  /// Asked once a pass for each site; `site` is canonical and covers all heads.
  virtual bool wants(const dsl::Site& site) const = 0;
  /// `x` is [n, width] (q, k, v, z: heads concatenated, in rotary order of the Hugging Face layout); the
  /// pattern's is one call a row that has tokens, in order: [heads, length, keys] float32; the logits' is one
  /// call a chunk of `logits_at`: [m, vocabulary] float32, with the layout of these m tokens. Change it in place or put
  /// another in its place. Reading and writing at one site happen in this one call.
  virtual void visit(const dsl::Site& site, at::Tensor& x, const PackedLayout& layout) = 0;
};

/// Stands between the residual stream and the maps that read it, and gives each of them an input of its own: what
/// patches or differentiates single edges of the computation. With one in a pass every query head has keys and values
/// of its own, also where the model's heads share them, so that at the sites `k` and `v` as many heads are seen as at
/// `q`; what is written to the stream is seen as ever, and the stream is the sum of it.
class StreamReader {
 public:
  virtual ~StreamReader() = default;
  /// The input, before its norm, of the maps to `q`, `k` or `v`: one a query head, [n, heads, width]; of the MLP
  /// (`mlp_pre`) and of the unembedding (`final_norm`): [n, width]. `stream` is the residual stream there, [n, width].
  virtual at::Tensor input(dsl::SiteKind reader, std::int64_t layer, const at::Tensor& stream) = 0;
};

/// What one forward pass is asked for. Everything not asked for is not computed.
struct Pass {
  const std::vector<Row>* rows = nullptr;
  KeyValueCache* cache = nullptr;  ///< continues it and appends to it; null: nothing is kept
  bool append = true;              ///< false: the cache is read and left as it was
  SiteVisitor* visitor = nullptr;
  StreamReader* reader = nullptr;  ///< null: the visitor's (`ReadingVisitor`), or all maps read the stream itself
  std::optional<dsl::Site> stop_after{};  ///< nothing past this site is computed, logits neither

  /// Packed indices (ascending) whose logits are wanted; nothing: of all tokens; empty: none.
  std::optional<std::vector<std::int64_t>> logits_at = std::vector<std::int64_t>{};
  /// Called with consecutive chunks: `first` indexes `logits_at` (or the tokens); logits are [m, vocabulary] float32.
  std::function<void(std::int64_t first, const at::Tensor& logits)> on_logits{};

  /// Starts at `resid_post[start_after]` with these values instead of at the embedding: only what lies
  /// downstream is computed, and that site is not visited. `rows` still gives tokens and lengths. With a cache,
  /// earlier positions come from the pass that filled it, whatever that one computed them from. Say ROME: a pass
  /// over the tokens before the subject fills the cache; then only the later tokens are recomputed in the layers
  /// above the edit (`append = false`), again and again, with gradients that flow to `start_values`. −1 starts at the
  /// embedding.
  std::optional<std::int64_t> start_after{};
  at::Tensor start_values{};  // [n, width]
};

/// A linear map that writes to the residual stream: embed (rows are outputs), attn_out, mlp_out.
struct LinearWriter {
  std::string weight;  ///< tensor name
  std::string bias;    ///< tensor name, also where the model has none yet
  double scale = 1;    ///< of what the map gives, before it is at the site (an embedding's)
};

/// A decoder-only transformer, float32 or bfloat16, on one device. One body; a table a family.
/// Weights change only through `set`. Under at::GradMode everything downstream of a tensor that
/// requires a gradient is differentiable; without it the fused kernels run.
class Transformer {
 public:
  struct Options {
    at::ScalarType dtype = at::kFloat;
    at::Device device = at::kCPU;
  };
  static std::unique_ptr<Transformer> load(const ModelCard& card, const Options& options);
  ~Transformer();

  const ModelConfig& config() const;
  const Options& options() const;
  const ModelCard& card() const;

  /// Runs a pass and returns its layout. Throws `InputError` where a row exceeds the context.
  PackedLayout forward(const Pass& pass) const;

  /// Weights by Hugging Face name, always [out, in] for linear maps ([vocabulary, width] for embeddings),
  /// whatever the source stored. Undefined where the model has no such tensor (a bias).
  at::Tensor get(const std::string& name) const;
  /// Puts another tensor of the same shape in its place (a bias that the model lacked may be added; an
  /// undefined one takes it away). An unembedding tied to a changed embedding keeps the old values: it is
  /// untied by the change. Undo by setting what `get` gave before: the same storage, the same bytes.
  void set(const std::string& name, at::Tensor value);
  /// All tensor names, in the order of the card.
  std::vector<std::string> names() const;
  bool tied() const;  ///< whether the unembedding is the embedding now

  /// The map whose output a site is; nothing where the site is not written by a linear map alone.
  std::optional<LinearWriter> writer(const dsl::Site& site) const;
  std::string embedding_name() const;
  std::string unembedding_name() const;
  /// The position table of families that have one, else "".
  std::string position_embedding_name() const;
  /// What the final norm multiplies by [width].
  at::Tensor final_norm_gain() const;

 private:
  struct State;
  explicit Transformer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace proviso::model
