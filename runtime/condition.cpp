#include "runtime/condition.hpp"

#include <re2/re2.h>

#include <algorithm>
#include <utility>
#include <variant>

namespace proviso::runtime {

namespace {

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};

template <class T>
bool compare(T left, dsl::Compare op, T right) {
  switch (op) {
    case dsl::Compare::less:
      return left < right;
    case dsl::Compare::less_equal:
      return left <= right;
    case dsl::Compare::greater:
      return left > right;
    case dsl::Compare::greater_equal:
      return left >= right;
    case dsl::Compare::equal:
      return left == right;
    case dsl::Compare::not_equal:
      return left != right;
  }
  return false;
}

}  // namespace

bool reads_text(const dsl::Condition& condition) {
  bool found = reads_prompt(condition);
  dsl::each_condition(
      condition, [&](const dsl::Condition& part) { found = found || std::holds_alternative<dsl::TokenIn>(part.node); });
  return found;
}

bool reads_prompt(const dsl::Condition& condition) {
  bool found = false;
  dsl::each_condition(condition, [&](const dsl::Condition& part) {
    found = found || std::holds_alternative<dsl::PromptMatches>(part.node);
  });
  return found;
}

struct ConditionSet::Node {
  struct Side {
    bool is_feature = false;
    dsl::FeatureId feature = 0;
    double number = 0;
  };
  enum class Kind { comparison, prompt_matches, token_in, position, generated, any, last, negation, all, either } kind;
  Side left, right;
  dsl::Compare op = dsl::Compare::greater;
  std::size_t regex = 0;
  std::size_t memory = 0;  // of a temporal node, in RowMemory::held
  std::int64_t value = 0;
  std::vector<std::int64_t> ids;  // ascending
  std::vector<std::size_t> children;
};

ConditionSet::ConditionSet() = default;
ConditionSet::~ConditionSet() = default;
ConditionSet::ConditionSet(ConditionSet&&) noexcept = default;

std::size_t ConditionSet::add(const dsl::Condition& condition, const TokenId& token_id, const QuantileValue& quantile) {
  roots_.push_back(compile(condition, token_id, quantile));
  reads_.push_back(dsl::features_read(condition));
  return roots_.size() - 1;
}

std::size_t ConditionSet::compile(const dsl::Condition& condition, const TokenId& token_id,
                                  const QuantileValue& quantile) {
  const auto recurse = [&](const dsl::ConditionPtr& part) { return compile(*part, token_id, quantile); };
  const auto side = [&](const dsl::Operand& operand) {
    return std::visit(Overloaded{[](double number) {
                                   return Node::Side{false, 0, number};
                                 },
                                 [](dsl::FeatureId feature) {
                                   return Node::Side{true, feature, 0};
                                 },
                                 [&](const dsl::Quantile& q) {
                                   return Node::Side{false, 0, quantile(q)};
                                 }},
                      operand);
  };
  Node node{};
  std::visit(Overloaded{[&](const dsl::Comparison& c) {
                          node.kind = Node::Kind::comparison;
                          node.left = side(c.left);
                          node.op = c.op;
                          node.right = side(c.right);
                        },
                        [&](const dsl::PromptMatches& m) {
                          node.kind = Node::Kind::prompt_matches;
                          node.regex = regexes_.size();
                          regexes_.push_back(std::make_unique<re2::RE2>(m.regex, re2::RE2::Quiet));
                        },
                        [&](const dsl::TokenIn& t) {
                          node.kind = Node::Kind::token_in;
                          for (const auto& text : t.texts) node.ids.push_back(token_id(text));
                          std::sort(node.ids.begin(), node.ids.end());
                        },
                        [&](const dsl::PositionIs& p) {
                          node.kind = Node::Kind::position;
                          node.op = p.op;
                          node.value = p.value;
                        },
                        [&](const dsl::Generated&) { node.kind = Node::Kind::generated; },
                        [&](const dsl::Any& a) {
                          node.kind = Node::Kind::any;
                          node.children = {recurse(a.of)};
                          node.memory = temporal_nodes_++;
                        },
                        [&](const dsl::Last& l) {
                          node.kind = Node::Kind::last;
                          node.children = {recurse(l.of)};
                          node.memory = temporal_nodes_++;
                        },
                        [&](const dsl::Not& n) {
                          node.kind = Node::Kind::negation;
                          node.children = {recurse(n.of)};
                        },
                        [&](const dsl::And& a) {
                          node.kind = Node::Kind::all;
                          for (const auto& part : a.of) node.children.push_back(recurse(part));
                        },
                        [&](const dsl::Or& o) {
                          node.kind = Node::Kind::either;
                          for (const auto& part : o.of) node.children.push_back(recurse(part));
                        }},
             condition.node);
  nodes_.push_back(std::move(node));
  return nodes_.size() - 1;
}

RowMemory ConditionSet::begin_row(const std::string& prompt) const {
  RowMemory memory;
  memory.held.assign(temporal_nodes_, 0);
  for (const auto& regex : regexes_) memory.prompt_matches.push_back(re2::RE2::PartialMatch(prompt, *regex));
  return memory;
}

ConditionSet::Evaluation::Evaluation(const ConditionSet& set, const model::PackedLayout& layout,
                                     std::vector<RowMemory*> rows, Activation activation)
    : set_(set),
      layout_(layout),
      rows_(std::move(rows)),
      activation_(std::move(activation)),
      masks_(set.nodes_.size()),
      conditions_(set.roots_.size()) {}

const Mask& ConditionSet::Evaluation::holds(std::size_t condition) {
  Mask& mask = conditions_[condition];
  if (!mask.empty()) return mask;
  mask = node(set_.roots_[condition]);
  if (!set_.reads_[condition].empty()) {
    for (const auto& row : layout_.rows) {
      if (row.first_position == 0 && row.length > 0) mask[row.begin] = 0;
    }
  }
  return mask;
}

const Mask& ConditionSet::Evaluation::node(std::size_t index) {
  if (masks_[index].empty()) masks_[index] = evaluate(index);
  return masks_[index];
}

Mask ConditionSet::Evaluation::evaluate(std::size_t index) {
  const Node& n = set_.nodes_[index];
  const std::size_t size = static_cast<std::size_t>(layout_.size());
  Mask mask(size, 0);
  using Kind = Node::Kind;
  switch (n.kind) {
    case Kind::comparison: {
      const auto values = [&](const Node::Side& side) {
        return side.is_feature ? activation_(side.feature) : std::span<const float>{};
      };
      const auto left = values(n.left), right = values(n.right);
      for (std::size_t i = 0; i < size; ++i) {
        mask[i] =
            compare<double>(left.empty() ? n.left.number : left[i], n.op, right.empty() ? n.right.number : right[i]);
      }
      break;
    }
    case Kind::prompt_matches:
      for (std::size_t r = 0; r < layout_.rows.size(); ++r) {
        const auto& row = layout_.rows[r];
        std::fill_n(mask.begin() + row.begin, row.length, rows_[r]->prompt_matches[n.regex]);
      }
      break;
    case Kind::token_in: {
      const at::Tensor here = layout_.tokens.cpu();
      const auto* tokens = here.const_data_ptr<std::int64_t>();
      for (std::size_t i = 0; i < size; ++i) mask[i] = std::binary_search(n.ids.begin(), n.ids.end(), tokens[i]);
      break;
    }
    case Kind::position:
      for (const auto& row : layout_.rows) {
        for (std::int64_t i = 0; i < row.length; ++i)
          mask[row.begin + i] = compare(row.first_position + i, n.op, n.value);
      }
      break;
    case Kind::generated:
      for (const auto& row : layout_.rows) {
        for (std::int64_t i = 0; i < row.length; ++i) mask[row.begin + i] = row.first_position + i >= row.prompt_length;
      }
      break;
    case Kind::any: {
      const Mask& of = node(n.children[0]);
      for (std::size_t r = 0; r < layout_.rows.size(); ++r) {
        const auto& row = layout_.rows[r];
        std::uint8_t& held = rows_[r]->held[n.memory];
        for (std::int64_t i = 0; i < row.length; ++i) {
          if (row.first_position + i >= 1 && of[row.begin + i]) held = 1;
          mask[row.begin + i] = held;
        }
      }
      break;
    }
    case Kind::last: {
      const Mask& of = node(n.children[0]);
      for (std::size_t r = 0; r < layout_.rows.size(); ++r) {
        const auto& row = layout_.rows[r];
        std::uint8_t& held = rows_[r]->held[n.memory];
        for (std::int64_t i = 0; i < row.length; ++i) {
          const std::int64_t position = row.first_position + i;
          if (position == row.prompt_length - 1 && position >= 1) held = of[row.begin + i];
          mask[row.begin + i] = position >= row.prompt_length - 1 ? held : 0;
        }
      }
      break;
    }
    case Kind::negation: {
      const Mask& of = node(n.children[0]);
      std::transform(of.begin(), of.end(), mask.begin(), [](std::uint8_t held) { return !held; });
      break;
    }
    case Kind::all:
    case Kind::either: {
      const bool all = n.kind == Kind::all;
      std::fill(mask.begin(), mask.end(), all);
      for (std::size_t child : n.children) {
        const Mask& part = node(child);
        for (std::size_t i = 0; i < size; ++i) mask[i] = all ? (mask[i] & part[i]) : (mask[i] | part[i]);
      }
      break;
    }
  }
  return mask;
}

}  // namespace proviso::runtime
