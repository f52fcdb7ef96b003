// Checks a rule file and names a model's sites: the language and the model layer, from outside.

#include <dsl/check.hpp>
#include <iostream>
#include <runtime/model/transformer.hpp>

int main() {
  using namespace proviso;
  dsl::SourceSet sources;
  const dsl::SourceId file = sources.add("inline.proviso", "check c { expect accuracy([\"a\" -> \" b\"]) >= 90% }\n");
  const auto rules = dsl::check_sources(sources, {file});
  if (!rules || rules.value->checks.size() != 1) return 1;
  try {
    model::Transformer::load(model::read_model_card("no such model"), {});
  } catch (const model::InputError& error) {
    std::cout << rules.value->checks[0].name << ": " << error.what() << "\n";
    return 0;
  }
  return 1;
}
