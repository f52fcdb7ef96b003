#pragma once

#include <string>

#include "dsl/ast.hpp"
#include "dsl/source.hpp"

namespace proviso::dsl {

/// The file in the one canonical style. Comments stay at the statement or list item they stood at, and
/// single blank lines between statements stay too. The file must have been read without an error:
/// only then does `parse` give back an equal one, and `format` the same text again.
std::string format(const ast::File& file, const SourceSet& sources);

/// One line that says the node whole, as `format` writes it where it has the room:
/// "effect(suppress anger, on: rate(angry, generates: /idiot/i)) <= -10% at 95% confidence".
std::string canonical_text(const ast::Expectation& expectation);
std::string canonical_text(const ast::Call& call);  ///< a metric, a method, a constructor, an attack
std::string canonical_text(const ast::Intervention& intervention);
std::string canonical_text(const ast::Patch& patch);
std::string canonical_text(const ast::Condition& condition);
std::string canonical_text(const ast::Value& value);

}  // namespace proviso::dsl
