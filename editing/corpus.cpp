#include "editing/corpus.hpp"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>

#include "runtime/formats/sha256.hpp"
#include "runtime/formats/tensor_file.hpp"

namespace proviso::editing {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> text_files(const fs::path& path) {
  if (!fs::is_directory(path)) return {path};
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(path))
    if (entry.is_regular_file() && entry.path().extension() == ".txt") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  if (files.empty()) throw model::InputError(path.string() + ": holds no .txt file to measure the model on");
  return files;
}

std::string read_text(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) throw model::InputError(path.string() + ": cannot be read; name a text file, or a folder of .txt files");
  std::string text{std::istreambuf_iterator<char>(in), {}};
  if (text.empty()) throw model::InputError(path.string() + ": is empty; name a text to measure the model on");
  return text;
}

}  // namespace

Corpus read_corpus(const std::string& path) {
  Corpus corpus;
  std::string all;
  for (const auto& file : text_files(path)) all += corpus.documents.emplace_back(read_text(file));
  corpus.sha256 = model::sha256_hex(std::as_bytes(std::span(all)));
  return corpus;
}

std::vector<model::Row> corpus_rows(const Corpus& corpus, const model::Tokenizer& tokenizer, std::int64_t row_length) {
  std::vector<model::Row> rows;
  for (const auto& document : corpus.documents) {
    const auto tokens = tokenizer.encode(document);
    for (auto begin = tokens.begin(); tokens.end() - begin > 1;) {
      const auto length = std::min<std::int64_t>(row_length, tokens.end() - begin);
      rows.push_back({{begin, begin + length}, length});
      begin += length;
    }
  }
  return rows;
}

}  // namespace proviso::editing
