#include "runtime/tokenizer/jinja.hpp"

#include <algorithm>
#include <functional>
#include <initializer_list>
#include <optional>

#include "runtime/tokenizer/jinja_lexer.hpp"
#include "runtime/tokenizer/jinja_operations.hpp"

namespace proviso::model::jinja {
namespace {

constexpr std::size_t kMaxSource = 1 << 18, kMaxOutput = std::size_t{16} << 20, kMaxRounds = 1 << 18;
constexpr int kMaxNesting = 64;

// Names, innermost last. A loop's body has its own: what is set there is gone after it.
struct Scopes {
  std::vector<Map> levels;
  std::size_t rounds = 0;  // of all loops

  void enter(Map names) {
    if (++rounds > kMaxRounds) refuse("its loops do not end");
    levels.push_back(std::move(names));
  }
  void leave() { levels.pop_back(); }
};

enum class Flow { next, break_loop, continue_loop };

using Expression = std::function<Value(const Scopes&)>;
using Statement = std::function<Flow(Scopes&, std::string&)>;

Value look_up(const Scopes& scopes, const std::string& name) {
  for (auto scope = scopes.levels.rbegin(); scope != scopes.levels.rend(); ++scope) {
    if (const auto found = scope->find(name); found != scope->end()) return found->second;
  }
  return {};
}

void put(std::string& out, const std::string& text) {
  if (out.size() + text.size() > kMaxOutput) refuse("a prompt of more than 16 MiB");
  out += text;
}

Statement sequence(std::vector<Statement> statements) {
  return [statements = std::move(statements)](Scopes& scopes, std::string& out) {
    for (const Statement& statement : statements) {
      if (const Flow flow = statement(scopes, out); flow != Flow::next) return flow;
    }
    return Flow::next;
  };
}

// The value of `loop` in one round.
Map loop_state(const List& items, std::size_t i) {
  const auto index = static_cast<std::int64_t>(i), count = static_cast<std::int64_t>(items.size());
  return {{"index", index + 1},
          {"index0", index},
          {"revindex", count - index},
          {"revindex0", count - index - 1},
          {"first", i == 0},
          {"last", i + 1 == items.size()},
          {"length", count},
          {"previtem", i == 0 ? Value() : items[i - 1]},
          {"nextitem", i + 1 == items.size() ? Value() : items[i + 1]}};
}

// A recursive-descent parser that turns a template into closures.
class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  Statement parse() {
    Statement whole = body({});
    if (peek().type != TokenType::end) refuse("'" + peek().text + "' at this place");
    return whole;
  }

 private:
  const Token& peek(std::size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
  Token next() {
    const Token token = peek();
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  bool is(TokenType type, std::string_view text) const { return peek().type == type && peek().text == text; }
  bool take(TokenType type, std::string_view text) {
    const bool found = is(type, text);
    if (found) next();
    return found;
  }
  bool take_symbol(std::string_view text) { return take(TokenType::symbol, text); }
  bool take_word(std::string_view text) { return take(TokenType::name, text); }
  void expect(TokenType type, std::string_view text = "") {
    if (peek().type != type || (!text.empty() && peek().text != text)) {
      refuse("'" + peek().text + "' where '" + std::string(text.empty() ? "a tag's end" : text) + "' is expected");
    }
    next();
  }
  std::string expect_name() {
    if (peek().type != TokenType::name) refuse("'" + peek().text + "' where a name is expected");
    return next().text;
  }

  // Statements up to one of `ends`, which is left to be read from its name on.
  Statement body(std::initializer_list<const char*> ends) {
    const Nesting nesting(depth_);
    std::vector<Statement> statements;
    while (peek().type != TokenType::end) {
      const Token token = next();
      if (token.type == TokenType::text) {
        statements.push_back([text = token.text](Scopes&, std::string& out) { return put(out, text), Flow::next; });
      } else if (token.type == TokenType::output_begin) {
        statements.push_back([value = expression()](Scopes& scopes, std::string& out) {
          return put(out, to_text(value(scopes))), Flow::next;
        });
        expect(TokenType::output_end);
      } else {
        for (const char* end : ends) {
          if (is(TokenType::name, end)) return sequence(std::move(statements));
        }
        statements.push_back(statement());
      }
    }
    if (ends.size() > 0) refuse(std::string("a block without '") + *(ends.end() - 1) + "'");
    return sequence(std::move(statements));
  }

  void end_block(const char* name) {
    expect(TokenType::name, name);
    expect(TokenType::statement_end);
  }

  Statement statement() {
    const std::string name = expect_name();
    if (name == "for") return for_loop();
    if (name == "if") return condition();
    if (name == "set") return assignment();
    if (name == "generation") {  // marks the model's own words; changes nothing
      expect(TokenType::statement_end);
      Statement inner = body({"endgeneration"});
      return end_block("endgeneration"), inner;
    }
    if (name == "break" || name == "continue") {
      expect(TokenType::statement_end);
      const Flow flow = name == "break" ? Flow::break_loop : Flow::continue_loop;
      return [flow](Scopes&, std::string&) { return flow; };
    }
    refuse("the statement '" + name + "'");
  }

  Statement for_loop() {
    const std::string variable = expect_name();
    if (is(TokenType::symbol, ",")) refuse("a loop over pairs");
    expect(TokenType::name, "in");
    Expression items = disjunction();
    std::optional<Expression> filter;
    if (take_word("if")) filter = expression();
    if (is(TokenType::name, "recursive")) refuse("a recursive loop");
    expect(TokenType::statement_end);
    Statement inner = body({"else", "endfor"}), otherwise = sequence({});
    if (take_word("else")) {
      expect(TokenType::statement_end);
      otherwise = body({"endfor"});
    }
    end_block("endfor");
    return [=](Scopes& scopes, std::string& out) {
      const Value value = items(scopes);
      const auto* list = value.as<std::shared_ptr<List>>();
      if (!list && !value.is_undefined()) refuse("a loop over what is not a list");
      List kept;
      for (const Value& item : list ? **list : List()) {
        scopes.enter({{variable, item}});
        if (!filter || is_true((*filter)(scopes))) kept.push_back(item);
        scopes.leave();
      }
      if (kept.empty()) return otherwise(scopes, out);
      for (std::size_t i = 0; i < kept.size(); ++i) {
        scopes.enter({{variable, kept[i]}, {"loop", loop_state(kept, i)}});
        const Flow flow = inner(scopes, out);
        scopes.leave();
        if (flow == Flow::break_loop) break;
      }
      return Flow::next;
    };
  }

  Statement condition() {
    Expression test = expression();
    expect(TokenType::statement_end);
    Statement then = body({"elif", "else", "endif"}), otherwise = sequence({});
    if (take_word("elif")) {
      const Nesting nesting(depth_);
      otherwise = condition();
    } else {
      if (take_word("else")) {
        expect(TokenType::statement_end);
        otherwise = body({"endif"});
      }
      end_block("endif");
    }
    return [=](Scopes& scopes, std::string& out) { return (is_true(test(scopes)) ? then : otherwise)(scopes, out); };
  }

  Statement assignment() {
    const std::string name = expect_name();
    std::string attribute;
    if (take_symbol(".")) attribute = expect_name();
    if (!take_symbol("=")) refuse("this form of 'set'");
    Expression value = expression();
    expect(TokenType::statement_end);
    return [=](Scopes& scopes, std::string&) {
      if (attribute.empty()) {
        scopes.levels.back()[name] = value(scopes);
        return Flow::next;
      }
      const Value object = look_up(scopes, name);
      const auto* map = object.as<std::shared_ptr<Map>>();
      if (!map) refuse("setting a member of what is not a namespace");
      (**map)[attribute] = value(scopes);
      return Flow::next;
    };
  }

  Expression expression() {
    const Nesting nesting(depth_);
    Expression value = disjunction();
    if (!take_word("if")) return value;
    Expression test = disjunction(), otherwise = [](const Scopes&) { return Value(); };
    if (take_word("else")) otherwise = expression();
    return [=](const Scopes& scopes) { return is_true(test(scopes)) ? value(scopes) : otherwise(scopes); };
  }

  Expression disjunction() {
    Expression left = conjunction();
    while (take_word("or")) {
      left = [left, right = conjunction()](const Scopes& scopes) {
        Value value = left(scopes);
        return is_true(value) ? value : right(scopes);
      };
    }
    return left;
  }

  Expression conjunction() {
    Expression left = negation();
    while (take_word("and")) {
      left = [left, right = negation()](const Scopes& scopes) {
        Value value = left(scopes);
        return is_true(value) ? right(scopes) : value;
      };
    }
    return left;
  }

  Expression negation() {
    const Nesting nesting(depth_);
    if (!take_word("not")) return comparison();
    return [inner = negation()](const Scopes& scopes) -> Value { return !is_true(inner(scopes)); };
  }

  Expression comparison() {
    Expression left = sum();
    const auto compare = [&](auto relation) -> Expression {
      return [left, right = sum(), relation](const Scopes& scopes) -> Value {
        return relation(left(scopes), right(scopes));
      };
    };
    const auto one = [&]() -> std::optional<Expression> {
      if (take_symbol("==")) return compare(equal);
      if (take_symbol("!=")) return compare([](const Value& a, const Value& b) { return !equal(a, b); });
      if (take_symbol("<")) return compare(less);
      if (take_symbol(">")) return compare([](const Value& a, const Value& b) { return less(b, a); });
      if (take_symbol("<=")) return compare([](const Value& a, const Value& b) { return !less(b, a); });
      if (take_symbol(">=")) return compare([](const Value& a, const Value& b) { return !less(a, b); });
      if (take_word("in")) return compare([](const Value& a, const Value& b) { return contains(b, a); });
      if (is(TokenType::name, "not") && peek(1).text == "in") {
        next(), next();
        return compare([](const Value& a, const Value& b) { return !contains(b, a); });
      }
      return std::nullopt;
    };
    const auto compared = one();
    if (!compared) return left;
    if (one()) refuse("a chain of comparisons");
    return *compared;
  }

  Expression sum() {
    Expression left = concatenation();
    while (is(TokenType::symbol, "+") || is(TokenType::symbol, "-")) {
      const char operation = next().text[0];
      left = [left, right = concatenation(), operation](const Scopes& scopes) {
        return arithmetic(operation, left(scopes), right(scopes));
      };
    }
    return left;
  }

  Expression concatenation() {
    Expression left = product();
    while (take_symbol("~")) {
      left = [left, right = product()](const Scopes& scopes) {
        return arithmetic('+', to_text(left(scopes)), to_text(right(scopes)));
      };
    }
    return left;
  }

  Expression product() {
    Expression left = unary();
    while (is(TokenType::symbol, "*") || is(TokenType::symbol, "//") || is(TokenType::symbol, "%")) {
      const char operation = next().text[0];
      left = [left, right = unary(), operation](const Scopes& scopes) {
        return arithmetic(operation, left(scopes), right(scopes));
      };
    }
    return left;
  }

  Expression unary() { return filters_and_tests(signed_value()); }

  Expression signed_value() {
    const Nesting nesting(depth_);
    if (!take_symbol("-")) return members(primary());
    return [inner = signed_value()](const Scopes& scopes) { return arithmetic('-', std::int64_t{0}, inner(scopes)); };
  }

  Expression primary() {
    const Token token = next();
    if (token.type == TokenType::string) {
      std::string text = token.text;
      while (peek().type == TokenType::string) text += next().text;
      return [text](const Scopes&) -> Value { return text; };
    }
    if (token.type == TokenType::number) {
      if (token.text.size() > 15 || token.text.find_first_not_of("0123456789") != std::string::npos) {
        refuse("the number '" + token.text + "'");
      }
      return [number = std::int64_t{std::stoll(token.text)}](const Scopes&) -> Value { return number; };
    }
    if (token.type == TokenType::symbol && token.text == "(") {
      Expression inner = expression();
      expect(TokenType::symbol, ")");
      return inner;
    }
    if (token.type == TokenType::symbol && token.text == "[") {
      return [items = call_arguments("]").positional](const Scopes& scopes) -> Value {
        List list;
        for (const Expression& item : items) list.push_back(item(scopes));
        return list;
      };
    }
    if (token.type != TokenType::name) refuse("'" + token.text + "' where a value is expected");
    return named(token.text);
  }

  Expression named(const std::string& name) {
    if (name == "true" || name == "True") return [](const Scopes&) -> Value { return true; };
    if (name == "false" || name == "False") return [](const Scopes&) -> Value { return false; };
    if (name == "none" || name == "None") return [](const Scopes&) -> Value { return nullptr; };
    if (take_symbol("(")) {
      return [name, arguments = call_arguments(")")](const Scopes& scopes) {
        return call_function(name, arguments.evaluate(scopes));
      };
    }
    return [name](const Scopes& scopes) { return look_up(scopes, name); };
  }

  struct CallArguments {
    std::vector<Expression> positional;
    std::vector<std::pair<std::string, Expression>> named;

    Arguments evaluate(const Scopes& scopes) const {
      Arguments values;
      for (const auto& value : positional) values.positional.push_back(value(scopes));
      for (const auto& [name, value] : named) values.named.emplace_back(name, value(scopes));
      return values;
    }
  };

  CallArguments call_arguments(const char* close) {
    CallArguments arguments;
    while (!take_symbol(close)) {
      if (peek().type == TokenType::name && peek(1).type == TokenType::symbol && peek(1).text == "=") {
        const std::string name = next().text;
        next();
        arguments.named.emplace_back(name, expression());
      } else {
        arguments.positional.push_back(expression());
      }
      if (!take_symbol(",") && !is(TokenType::symbol, close)) refuse("'" + peek().text + "' within a list");
    }
    return arguments;
  }

  Expression members(Expression object) {
    while (true) {
      if (take_symbol(".")) {
        const std::string name = expect_name();
        if (take_symbol("(")) {
          object = [object, name, arguments = call_arguments(")")](const Scopes& scopes) {
            return call_method(object(scopes), name, arguments.evaluate(scopes));
          };
        } else {
          object = [object, name](const Scopes& scopes) { return element(object(scopes), name); };
        }
      } else if (take_symbol("[")) {
        object = subscript(std::move(object));
      } else {
        return object;
      }
    }
  }

  Expression subscript(Expression object) {
    const Expression none = [](const Scopes&) { return Value(); };
    Expression begin = is(TokenType::symbol, ":") ? none : expression(), end = none;
    if (!take_symbol(":")) {
      expect(TokenType::symbol, "]");
      return [object, begin](const Scopes& scopes) { return element(object(scopes), begin(scopes)); };
    }
    if (!is(TokenType::symbol, "]")) end = expression();
    expect(TokenType::symbol, "]");
    return [=](const Scopes& scopes) { return slice(object(scopes), begin(scopes), end(scopes)); };
  }

  Expression filters_and_tests(Expression value) {
    while (true) {
      if (take_symbol("|")) {
        const std::string name = expect_name();
        CallArguments arguments;
        if (take_symbol("(")) arguments = call_arguments(")");
        value = [value, name, arguments](const Scopes& scopes) {
          return apply_filter(value(scopes), name, arguments.evaluate(scopes));
        };
      } else if (take_word("is")) {
        const bool negated = take_word("not");
        value = [value, negated, name = expect_name()](const Scopes& scopes) -> Value {
          return apply_test(value(scopes), name) != negated;
        };
      } else {
        return value;
      }
    }
  }

  // Counts how deep the parser is.
  class Nesting {
   public:
    explicit Nesting(int& depth) : depth_(depth) {
      if (++depth_ > kMaxNesting) refuse("it is nested too deeply");
    }
    ~Nesting() { --depth_; }

   private:
    int& depth_;
  };

  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

std::string render(std::string_view source, const Map& variables) {
  if (source.size() > kMaxSource) refuse("it is longer than 256 KiB");
  const Statement whole = Parser(tokenize(source)).parse();
  Scopes scopes{{variables, {}}};
  std::string out;
  whole(scopes, out);
  return out;
}

}  // namespace proviso::model::jinja
