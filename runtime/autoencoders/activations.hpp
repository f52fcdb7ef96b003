#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "runtime/model/transformer.hpp"
#include "runtime/tokenizer/tokenizer.hpp"

namespace proviso::runtime {

/// Plain text as a model is given it to train, measure or read an autoencoder.
struct TextRows {
  std::vector<model::Row> rows;  ///< each from position 0
  std::int64_t tokens = 0;
  std::string sha256;  ///< over the documents' bytes
};

/// `paths` are text files, or folders whose `.txt` files are read; documents are cut into rows of at most `row_length`.
/// Throws `InputError`: a file that is missing, empty or no UTF-8.
TextRows read_text_rows(const std::vector<std::string>& paths, const model::Tokenizer& tokenizer,
                        std::int64_t row_length);

/// The part of a site's width that a site takes: all of it, or a head's.
struct SitePart {
  std::int64_t begin = 0, width = 0;
};
SitePart site_part(const model::ModelCard& card, const dsl::Site& site);

/// Calls `pass` with consecutive rows, `count` from `first` on, as many as fit one forward pass.
void each_pass(const std::vector<model::Row>& rows,
               const std::function<void(std::size_t first, std::size_t count)>& pass);
/// Those rows.
std::vector<model::Row> some_rows(const std::vector<model::Row>& rows, std::size_t first, std::size_t count);

/// What stands at two sites in one pass, at its ordinary positions (no attention sinks): m in all.
struct SeenActivations {
  at::Tensor read, written;  // [m, width] float32
  at::Tensor packed;         // [m] int64, ascending: which tokens of the pass
  const model::PackedLayout& layout;
  std::size_t first_row = 0;
};

/// Runs the rows as far as the later site and shows what stands there, pass by pass.
void each_activation(const model::Transformer& transformer, const dsl::Site& read, const dsl::Site& written,
                     const std::vector<model::Row>& rows, const std::function<void(const SeenActivations&)>& see);

}  // namespace proviso::runtime
