#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/model/transformer.hpp"
#include "runtime/tokenizer/tokenizer.hpp"

namespace proviso::editing {

/// Plain text to measure a model on.
struct Corpus {
  std::vector<std::string> documents;
  std::string sha256;  ///< over the files' bytes in name order
};

/// `path` is a text file, or a folder whose `.txt` files are read in name order. Throws `InputError`
/// where there is none, or where one is empty.
Corpus read_corpus(const std::string& path);

/// The documents' tokens, cut into rows of at most `row_length`; rows of a single token are left out.
std::vector<model::Row> corpus_rows(const Corpus& corpus, const model::Tokenizer& tokenizer, std::int64_t row_length);

}  // namespace proviso::editing
