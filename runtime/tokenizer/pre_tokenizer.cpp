#include "runtime/tokenizer/pre_tokenizer.hpp"

#include <algorithm>

#include "runtime/tokenizer/byte_alphabet.hpp"
#include "runtime/tokenizer/utf8.hpp"

namespace proviso::model {
namespace {

struct Part {
  TextSpan span;
  bool delimiter;
};

// The matches and what lies between them, in order.
std::vector<Part> alternate(std::string_view text, const std::vector<TextSpan>& matches) {
  std::vector<Part> parts;
  std::size_t end = 0;
  for (const TextSpan& match : matches) {
    if (end < match.begin) parts.push_back({{end, match.begin}, false});
    parts.push_back({match, true});
    end = match.end;
  }
  if (end < text.size()) parts.push_back({{end, text.size()}, false});
  return parts;
}

void join_with_previous(std::vector<Part>& parts) {
  std::vector<Part> joined;
  bool after_delimiter = false;
  for (const Part& part : parts) {
    if (part.delimiter && !after_delimiter && !joined.empty()) {
      joined.back().span.end = part.span.end;
    } else {
      joined.push_back(part);
    }
    after_delimiter = part.delimiter;
  }
  parts = std::move(joined);
}

void join_with_next(std::vector<Part>& parts) {
  std::vector<Part> joined;
  bool before_delimiter = false;
  for (auto part = parts.rbegin(); part != parts.rend(); ++part) {
    if (part->delimiter && !before_delimiter && !joined.empty()) {
      joined.back().span.begin = part->span.begin;
    } else {
      joined.push_back(*part);
    }
    before_delimiter = part->delimiter;
  }
  std::reverse(joined.begin(), joined.end());
  parts = std::move(joined);
}

void join_equal_neighbours(std::vector<Part>& parts) {
  std::vector<Part> joined;
  for (const Part& part : parts) {
    if (!joined.empty() && joined.back().delimiter == part.delimiter) {
      joined.back().span.end = part.span.end;
    } else {
      joined.push_back(part);
    }
  }
  parts = std::move(joined);
}

void split(const Piece& piece, std::vector<Part> parts, SplitBehavior behavior, std::vector<Piece>& out) {
  switch (behavior) {
    case SplitBehavior::removed:
      std::erase_if(parts, [](const Part& part) { return part.delimiter; });
      break;
    case SplitBehavior::isolated:
      break;
    case SplitBehavior::merged_with_previous:
      join_with_previous(parts);
      break;
    case SplitBehavior::merged_with_next:
      join_with_next(parts);
      break;
    case SplitBehavior::contiguous:
      join_equal_neighbours(parts);
      break;
  }
  for (const auto& [span, delimiter] : parts) {
    out.push_back({piece.text.substr(span.begin, span.end - span.begin), piece.at_start && span.begin == 0});
  }
}

class Step {
 public:
  Step(std::deque<std::string>& storage, std::vector<Piece>& out) : storage_(storage), out_(out) {}

  void apply(const SplitByPattern& step, const Piece& piece) {
    matches_.clear();
    step.pattern.find_all(piece.text, matches_);
    std::vector<Part> parts = alternate(piece.text, matches_);
    if (step.invert) {
      for (Part& part : parts) part.delimiter = !part.delimiter;
    }
    split(piece, std::move(parts), step.behavior, out_);
  }

  void apply(const SplitDigits& step, const Piece& piece) {
    matches_.clear();
    for (std::size_t offset = 0; offset < piece.text.size();) {
      const std::size_t begin = offset;
      const char32_t c = next_code_point(piece.text, offset);
      const bool numeric = c < 0x80 ? c >= '0' && c <= '9' : numeric_characters().contains(c);
      if (numeric) matches_.push_back({begin, offset});
    }
    const auto behavior = step.individual ? SplitBehavior::isolated : SplitBehavior::contiguous;
    split(piece, alternate(piece.text, matches_), behavior, out_);
  }

  void apply(const SplitAtSpaces& step, const Piece& piece) {
    std::string text;
    for (const char c : piece.text) c == ' ' ? text += step.replacement : text += c;
    const bool prefixed =
        step.prefix == SplitAtSpaces::Prefix::always || (step.prefix == SplitAtSpaces::Prefix::first && piece.at_start);
    if (prefixed && !text.starts_with(step.replacement)) text.insert(0, step.replacement);
    const Piece whole{storage_.emplace_back(std::move(text)), piece.at_start};
    if (!step.split) return out_.push_back(whole);
    matches_.clear();
    step.pattern.find_all(whole.text, matches_);
    split(whole, alternate(whole.text, matches_), SplitBehavior::merged_with_next, out_);
  }

  void apply(const PrefixSpace&, const Piece& piece) {
    if (piece.text.starts_with(' ')) return out_.push_back(piece);
    out_.push_back({storage_.emplace_back(" " + std::string(piece.text)), piece.at_start});
  }

  void apply(const MapBytes&, const Piece& piece) {
    out_.push_back({storage_.emplace_back(to_byte_alphabet(piece.text)), piece.at_start});
  }

 private:
  std::deque<std::string>& storage_;
  std::vector<Piece>& out_;
  std::vector<TextSpan> matches_;
};

}  // namespace

std::vector<Piece> pre_tokenize(const std::vector<PreTokenizer>& steps, Piece piece, std::deque<std::string>& storage) {
  std::vector<Piece> pieces = {piece}, split_pieces;
  for (const PreTokenizer& step : steps) {
    split_pieces.clear();
    Step stage(storage, split_pieces);
    for (const Piece& each : pieces) {
      std::visit([&](const auto& kind) { stage.apply(kind, each); }, step);
    }
    pieces.swap(split_pieces);
  }
  return pieces;
}

}  // namespace proviso::model
