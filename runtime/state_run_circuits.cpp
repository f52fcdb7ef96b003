#include <algorithm>
#include <cmath>
#include <utility>

#include "runtime/circuits/find_circuit.hpp"
#include "runtime/model/pass_groups.hpp"
#include "runtime/state_run.hpp"

namespace proviso::runtime {

model::SiteVisitor* StateRun::begin(Hooks& hooks, const std::vector<std::string>& prompts,
                                    std::vector<RowMemory>& memories) const {
  memories.clear();
  for (const auto& prompt : prompts) memories.push_back(hooks.program.conditions().begin_row(prompt));
  std::vector<RowMemory*> pointers;
  for (auto& memory : memories) pointers.push_back(&memory);
  hooks.pass->begin(std::move(pointers));
  return hooks.pass.get();
}

/// The pairs unpatched, to see what the sentences do to them; then the circuit's edges under the same sentences.
void StateRun::circuit(const CircuitKey& key, Hooks& seeing, Hooks& patching) {
  const BoundCircuit& circuit = c_.bound.circuit(key.circuit, key.attacks, key.seed);
  const auto& pairs = circuit.measured();
  CircuitSeen& result = evidence_.circuit_runs_[key];
  if (pairs.empty()) return;
  std::vector<RowMemory> memories;
  const auto sides = 2 * pairs.size();
  const auto prompt = [&](std::size_t i) -> const BoundPrompt& {
    return i % 2 == 0 ? pairs[i / 2].clean : pairs[i / 2].corrupt;
  };
  const auto length = [&](std::size_t i) { return std::ssize(prompt(i).tokens); };
  for (const auto& [first, end] : model::pass_groups(acts() ? sides : 0, length)) {
    std::vector<model::Row> rows;
    std::vector<std::string> prompts;
    for (std::size_t i = first; i < end; ++i) {
      rows.push_back({prompt(i).tokens, length(i)});
      prompts.push_back(prompt(i).text);
    }
    model::Pass pass;
    pass.rows = &rows;
    pass.visitor = begin(seeing, prompts, memories);
    pass.stop_after = dsl::Site{dsl::SiteKind::resid_post, c_.bound.card->config.layers - 1, -1};
    const auto layout = c_.transformer.forward(pass);
    for (const auto& span : layout.rows) trace(seeing, span, result);
    evidence_.tokens += layout.size();
  }
  keep_activity(seeing, false);

  MeasuredPairs::InForce in_force;
  if (acts()) {
    in_force = [&](const std::vector<std::string>& prompts) { return begin(patching, prompts, memories); };
  }
  const auto patched = patched_pairs(c_.transformer, c_.autoencoders.get(circuit.autoencoders), pairs,
                                     circuit.probability, key.ablation, std::move(in_force));
  result.runs = run_circuit(*patched, evidence_.circuits_.at(key.circuit).kept);
  for (const auto* m : {&result.runs.clean, &result.runs.edgeless, &result.runs.circuit, &result.runs.without}) {
    result.finite =
        result.finite && std::all_of(m->begin(), m->end(), [](double value) { return std::isfinite(value); });
  }
  evidence_.sequences += std::ssize(pairs) * 2;
  evidence_.tokens += patched->tokens();
}

}  // namespace proviso::runtime
