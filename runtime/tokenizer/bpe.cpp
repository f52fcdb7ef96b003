#include "runtime/tokenizer/bpe.hpp"

#include <algorithm>
#include <bit>
#include <limits>
#include <queue>

#include "runtime/formats/tensor_file.hpp"
#include "runtime/tokenizer/byte_alphabet.hpp"
#include "runtime/tokenizer/utf8.hpp"

namespace proviso::model {
namespace {

constexpr std::uint32_t kNoRank = std::numeric_limits<std::uint32_t>::max();
// Up to here a scan for the lowest rank beats a heap.
constexpr std::size_t kShortWord = 48;

std::uint64_t pair_key(std::uint32_t left, std::uint32_t right) { return std::uint64_t{left} << 32 | right; }

std::string byte_token(unsigned byte) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  return {'<', '0', 'x', kDigits[byte >> 4], kDigits[byte & 15], '>'};
}

}  // namespace

Bpe::Bpe(Vocabulary vocabulary, const std::vector<Merge>& merges, BpeOptions options)
    : vocabulary_(std::move(vocabulary)), options_(std::move(options)) {
  // Keys are spread over the top bits of their product, so the table's size is a power of two; half of it stays free.
  const std::size_t slots = std::bit_ceil(2 * merges.size() + 2);
  hash_shift_ = 64 - std::countr_zero(slots);
  rules_.resize(slots, {0, kNoRank, 0});

  const auto id_of = [&](std::string_view text, const Merge& merge) {
    if (const auto id = vocabulary_.find(text)) return *id;
    throw InputError("the merge '" + std::string(merge.left) + " " + std::string(merge.right) + "' names '" +
                     std::string(text) + "', which is not in the vocabulary");
  };
  std::string both;
  for (std::uint32_t rank = 0; rank < merges.size(); ++rank) {
    const Merge& merge = merges[rank];
    both.assign(merge.left).append(merge.right);
    const std::uint64_t pair = pair_key(id_of(merge.left, merge), id_of(merge.right, merge));
    rules_[slot_of(pair)] = {pair, rank,
                             id_of(both, merge)};  // a pair given twice keeps its last rank, as in `tokenizers`
  }

  if (options_.unknown_token) {
    unknown_ = vocabulary_.find(*options_.unknown_token);
    if (!unknown_) throw InputError("the unknown token '" + *options_.unknown_token + "' is not in the vocabulary");
  }
  for (unsigned byte = 0; byte < 256; ++byte) {
    std::string character;
    append_utf8(character, character_of_byte(static_cast<std::uint8_t>(byte)));
    byte_symbol_[byte] = vocabulary_.find(character);
    if (options_.byte_fallback) fallback_[byte] = vocabulary_.find(byte_token(byte));
  }
}

std::size_t Bpe::slot_of(std::uint64_t pair) const {
  const std::size_t mask = rules_.size() - 1;
  std::size_t slot = (pair * 0x9E3779B97F4A7C15u) >> hash_shift_;
  while (rules_[slot].rank != kNoRank && rules_[slot].pair != pair) slot = (slot + 1) & mask;
  return slot;
}

const Bpe::Rule* Bpe::find_rule(std::uint32_t left, std::uint32_t right) const {
  return &rules_[slot_of(pair_key(left, right))];
}

std::vector<Merge> Bpe::merges() const {
  std::vector<Rule> ranked;
  std::copy_if(rules_.begin(), rules_.end(), std::back_inserter(ranked),
               [](const Rule& r) { return r.rank != kNoRank; });
  std::sort(ranked.begin(), ranked.end(), [](const Rule& a, const Rule& b) { return a.rank < b.rank; });
  std::vector<Merge> merges;
  for (const Rule& rule : ranked) {
    merges.push_back({vocabulary_.text(rule.pair >> 32), vocabulary_.text(rule.pair & 0xFFFFFFFF)});
  }
  return merges;
}

void Bpe::encode(std::string_view word, std::vector<std::int64_t>& ids) const {
  if (options_.ignore_merges) {
    if (const auto id = vocabulary_.find(word)) return ids.push_back(*id);
  }
  std::vector<std::uint32_t> symbols;
  bool unknown_pending = false;
  const auto put_unknown = [&] {
    if (unknown_pending) symbols.push_back(*unknown_);
    unknown_pending = false;
  };
  for (std::size_t offset = 0; offset < word.size();) {
    const std::size_t begin = offset;
    next_code_point(word, offset);
    const std::string_view character = word.substr(begin, offset - begin);
    const auto fallback = [&](char byte) { return fallback_[static_cast<std::uint8_t>(byte)]; };
    if (const auto id = vocabulary_.find(character)) {
      put_unknown();
      symbols.push_back(*id);
    } else if (std::all_of(character.begin(), character.end(), fallback)) {
      // A pending unknown token stays pending across the fallback, as in `tokenizers`.
      for (const char byte : character) symbols.push_back(*fallback(byte));
    } else if (unknown_) {
      if (!options_.fuse_unknown) put_unknown();
      unknown_pending = true;
    }
  }
  put_unknown();
  merge(symbols, ids);
}

void Bpe::encode_bytes(std::string_view word, std::vector<std::int64_t>& ids) const {
  std::vector<std::uint32_t> symbols;
  symbols.reserve(word.size());
  for (const char byte : word) {
    const auto id = byte_symbol_[static_cast<std::uint8_t>(byte)];
    if (!id) return encode(to_byte_alphabet(word), ids);
    symbols.push_back(*id);
  }
  if (options_.ignore_merges) {
    if (const auto id = vocabulary_.find(to_byte_alphabet(word))) return ids.push_back(*id);
  }
  merge(symbols, ids);
}

void Bpe::merge(std::vector<std::uint32_t>& symbols, std::vector<std::int64_t>& ids) const {
  symbols.size() <= kShortWord ? merge_short(symbols, ids) : merge_long(symbols, ids);
}

void Bpe::merge_short(std::vector<std::uint32_t>& symbols, std::vector<std::int64_t>& ids) const {
  std::array<const Rule*, kShortWord> rules;  // of each symbol with its right neighbour
  std::size_t count = symbols.size();
  for (std::size_t i = 0; i + 1 < count; ++i) rules[i] = find_rule(symbols[i], symbols[i + 1]);
  while (count > 1) {
    const auto end = rules.begin() + static_cast<std::ptrdiff_t>(count) - 1;
    const auto best =
        std::min_element(rules.begin(), end, [](const Rule* a, const Rule* b) { return a->rank < b->rank; });
    if ((*best)->rank == kNoRank) break;
    const auto at = static_cast<std::size_t>(best - rules.begin());
    symbols[at] = (*best)->result;
    std::copy(symbols.begin() + static_cast<std::ptrdiff_t>(at) + 2,
              symbols.begin() + static_cast<std::ptrdiff_t>(count),
              symbols.begin() + static_cast<std::ptrdiff_t>(at) + 1);
    std::copy(best + 1, end, best);
    --count;
    if (at > 0) rules[at - 1] = find_rule(symbols[at - 1], symbols[at]);
    if (at + 1 < count) rules[at] = find_rule(symbols[at], symbols[at + 1]);
  }
  ids.insert(ids.end(), symbols.begin(), symbols.begin() + static_cast<std::ptrdiff_t>(count));
}

void Bpe::merge_long(const std::vector<std::uint32_t>& symbols, std::vector<std::int64_t>& ids) const {
  struct Node {
    std::uint32_t symbol;
    std::size_t previous, next;
    bool merged_away = false;
  };
  struct Candidate {
    const Rule* rule;
    std::size_t at;
    bool operator<(const Candidate& other) const {  // the queue's top is the greatest
      return rule->rank != other.rule->rank ? rule->rank > other.rule->rank : at > other.at;
    }
  };
  const std::size_t end = symbols.size();
  std::vector<Node> nodes(end);
  std::priority_queue<Candidate> queue;
  const auto consider = [&](std::size_t at) {
    if (at == end || nodes[at].next == end) return;
    const Rule* rule = find_rule(nodes[at].symbol, nodes[nodes[at].next].symbol);
    if (rule->rank != kNoRank) queue.push({rule, at});
  };
  for (std::size_t i = 0; i < end; ++i) nodes[i] = {symbols[i], i == 0 ? end : i - 1, i + 1};
  for (std::size_t i = 0; i < end; ++i) consider(i);
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    Node& node = nodes[top.at];
    if (node.merged_away || node.next == end) continue;
    Node& right = nodes[node.next];
    if (pair_key(node.symbol, right.symbol) != top.rule->pair) continue;  // one of the two has changed since
    node.symbol = top.rule->result;
    node.next = right.next;
    right.merged_away = true;
    if (node.next != end) nodes[node.next].previous = top.at;
    consider(node.previous);
    consider(top.at);
  }
  for (std::size_t i = 0; i != end; i = nodes[i].next) ids.push_back(nodes[i].symbol);
}

}  // namespace proviso::model
