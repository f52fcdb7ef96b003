#include "runtime/explain.hpp"

#include <algorithm>
#include <array>
#include <iomanip>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <tuple>
#include <vector>

#include "dsl/condition_logic.hpp"
#include "dsl/number_text.hpp"
#include "runtime/cost.hpp"
#include "runtime/erasure.hpp"
#include "runtime/features/build.hpp"
#include "runtime/features/choose_sites.hpp"
#include "runtime/model/sinks.hpp"
#include "runtime/passes/passes.hpp"

namespace proviso::runtime {

namespace {

using nlohmann::ordered_json;

/// "mlp_out[0..29], attn_out[0..29], embed": runs of layers as one.
std::string sites_text(const std::vector<dsl::Site>& sites) {
  std::string text;
  for (std::size_t i = 0; i < sites.size();) {
    std::size_t end = i + 1;
    while (end < sites.size() && sites[end].kind == sites[i].kind && sites[end].head == sites[i].head &&
           sites[i].layer >= 0 && sites[end].layer == sites[end - 1].layer + 1) {
      ++end;
    }
    if (!text.empty()) text += ", ";
    if (end - i > 1) {
      text += std::string(dsl::site_name(sites[i].kind)) + "[" + std::to_string(sites[i].layer) + ".." +
              std::to_string(sites[end - 1].layer) + "]";
      if (sites[i].head >= 0) text += " head " + std::to_string(sites[i].head);
    } else {
      text += dsl::to_string(sites[i]);
    }
    i = end;
  }
  return text;
}

bool acts_everywhere(const PlannedSentence& sentence) { return !sentence.sentence.condition; }

/// The plan's states with their unconditional sentences alone, on the first token of each sequence.
Plan first_position_plan(const Plan& plan) {
  Plan firsts;
  std::set<std::vector<std::int64_t>> seen;
  for (const auto& sequence : plan.sequences) {
    if (sequence.tokens.empty() || !seen.insert({sequence.tokens.front()}).second) continue;
    firsts.sequences.push_back({{sequence.tokens.front()}, 1, ""});
  }
  for (const auto& state : plan.states) {
    if (state.controls) continue;
    ModelState unconditional;
    unconditional.label = state.label;
    std::copy_if(state.sentences.begin(), state.sentences.end(), std::back_inserter(unconditional.sentences),
                 acts_everywhere);
    if (unconditional.sentences.empty()) continue;
    for (auto& sentence : unconditional.sentences) {
      firsts.features.insert(sentence.sentence.feature);
      sentence.hooks.insert(sentence.hooks.end(), sentence.folds.begin(), sentence.folds.end());
      sentence.folds.clear();
    }
    Run run;
    run.state = firsts.states.size();
    run.batches.emplace_back();
    for (SequenceId id = 0; id < firsts.sequences.size(); ++id) {
      run.wants[id].firing = true;
      run.batches.back().sequences.push_back(id);
    }
    firsts.states.push_back(std::move(unconditional));
    firsts.runs.push_back(std::move(run));
  }
  return firsts;
}

/// What would make a sentence that is hooked cost nothing at run time.
std::string would_save(const PlannedSentence& sentence, const BoundRules& bound) {
  if (sentence.hooks.empty() || sentence.of_change) return "";
  if (std::holds_alternative<dsl::Latent>(bound.rules->features[sentence.sentence.feature].constructor)) return "";
  if (sentence.sentence.operation == dsl::Operation::cap) return "";
  const auto has_writer = [&](const dsl::Site& site) { return passes::has_linear_writer(site, *bound.card); };
  const bool writers = std::all_of(sentence.hooks.begin(), sentence.hooks.end(), has_writer);
  const std::string elsewhere = bound.card->norms_writers() ? "embed" : "mlp_out, attn_out or embed";
  const auto never_folds = [&](const dsl::Site& site) {
    return has_writer(site) && !passes::lacks_bias(sentence.sentence, site, bound).empty();
  };
  if (std::any_of(sentence.hooks.begin(), sentence.hooks.end(), never_folds)) return "";
  const std::string rest = "it would become a weight edit and cost nothing at run time";
  if (sentence.sentence.condition) {
    return (writers ? "without its condition " : "without its condition, at " + elsewhere + ", ") + rest;
  }
  return writers ? "with no other hook and no reading at these sites " + rest
                 : "at " + elsewhere + " in place of " + sites_text(sentence.hooks) + " " + rest;
}

/// The prompts' tokens that a state computes.
std::int64_t tokens_in(const Plan& plan, StateId state) {
  std::int64_t tokens = 0;
  for (const auto& run : plan.runs) {
    if (run.state == state) tokens += PassCost::work(run, plan).tokens;
  }
  return tokens;
}

ordered_json explain_rules(const Plan& plan, const BoundRules& bound, const FirstPositionChanges& changes) {
  ordered_json rules = ordered_json::array();
  std::map<std::tuple<std::string, std::string, std::string>, std::size_t> told;
  std::set<std::pair<std::size_t, dsl::FeatureId>> seen_members;
  const PassCost cost(bound.card->config);
  for (StateId id = 0; id < plan.states.size(); ++id) {
    const auto& state = plan.states[id];
    if (state.controls) continue;
    const std::int64_t tokens = tokens_in(plan, id);
    for (const auto& sentence : state.sentences) {
      ordered_json entry = {{"rule", sentence.rule}, {"sentence", sentence.sentence.text}};
      if (!sentence.folds.empty()) entry["weight_edits"] = sites_text(sentence.folds);
      if (!sentence.hooks.empty()) entry["hooks"] = sites_text(sentence.hooks);
      if (!sentence.why.empty()) entry["why"] = sentence.why;
      if (const auto at_0 = changes.find({sentence.rule, sentence.sentence.text}); at_0 != changes.end()) {
        const auto largest = std::max_element(at_0->second.begin(), at_0->second.end(),
                                              [](const auto& a, const auto& b) { return a.second < b.second; });
        entry["relative_change_at_0"] = {{"largest", largest->second}, {"site", dsl::to_string(largest->first)}};
      }
      const bool beside = sentence.subspace && sentence.sentence.feature !=
                                                   dsl::members_of(bound.rules->features[*sentence.subspace]).front();
      const auto [at, is_new] =
          told.emplace(std::tuple{sentence.rule, sentence.sentence.text, entry.dump()}, rules.size());
      if (is_new) {
        const double flops = PassCost::hooks(sentence, bound);
        entry["cost"] = {{"tokens", 0}, {"flops_per_token", flops}, {"share_of_pass", flops / cost.token()}};
        if (const std::string change = would_save(sentence, bound); !change.empty()) entry["would_save"] = change;
        rules.push_back(std::move(entry));
      }
      auto& cost_of = rules[at->second]["cost"];
      if (beside) {  // another feature of one sentence's subspace
        if (!seen_members.insert({at->second, sentence.sentence.feature}).second) continue;
        const double flops = PassCost::hooks(sentence, bound);
        cost_of["flops_per_token"] = cost_of["flops_per_token"].get<double>() + flops;
        cost_of["share_of_pass"] = cost_of["share_of_pass"].get<double>() + flops / cost.token();
        continue;
      }
      auto& counted = cost_of["tokens"];
      counted = counted.get<std::int64_t>() + tokens;
    }
    for (const auto& replacement : state.replacements) {
      const auto* suppression = std::get_if<dsl::CircuitSuppression>(&replacement.what);
      ordered_json entry = {{"rule", replacement.rule}, {"sentence", replacement.text()}};
      if (suppression != nullptr) {
        const auto& circuit = bound.rules->circuits[suppression->circuit];
        entry["hooks"] = "what the " + std::string(circuit.keep.nodes ? "nodes of " : "edges of ") + circuit.name +
                         (circuit.keep.nodes ? " write" : " carry");
        entry["why"] = "the attention sink at position 0 stays as it is, which no weights can tell";
        if (circuit.keep.nodes)
          entry["would_save"] = "remove circuit " + circuit.name + " in an edit: it would cost nothing at run time";
      } else {
        entry["hooks"] = sites_text(bound.expand(std::get<dsl::Patch>(replacement.what).sites));
        entry["why"] = "what other prompts give is known at each token";
      }
      const auto [at, is_new] =
          told.emplace(std::tuple{replacement.rule, replacement.text(), entry.dump()}, rules.size());
      if (is_new) {
        // How many products an edge or a node takes is known once the circuit is found.
        entry["cost"] = {{"tokens", 0}, {"flops_per_token", nullptr}, {"share_of_pass", nullptr}};
        rules.push_back(std::move(entry));
      }
      auto& counted = rules[at->second]["cost"]["tokens"];
      counted = counted.get<std::int64_t>() + tokens;
    }
  }
  return rules;
}

ordered_json explain_edits(const BoundRules& bound) {
  ordered_json edits = ordered_json::array();
  for (const dsl::EditId id : bound.rules->own_edits()) {
    const auto& edit = bound.rules->edits[id];
    ordered_json changes = ordered_json::array();
    for (const auto& change : edit.changes) {
      if (const auto* fact = std::get_if<dsl::Fact>(&change)) {
        changes.push_back("\"" + fact->subject + "\" to \"" + fact->to + "\"");
      } else if (const auto* file = std::get_if<dsl::FactFile>(&change)) {
        changes.push_back("facts from " + file->file.path);
      } else if (const auto* remove = std::get_if<dsl::Remove>(&change)) {
        changes.push_back("remove " + bound.feature_name(remove->feature) + " at " +
                          sites_text(bound.expand(remove->sites)));
      } else if (const auto* circuit = std::get_if<dsl::RemoveCircuit>(&change)) {
        changes.push_back("remove circuit " + bound.rules->circuits[circuit->circuit].name);
      } else {
        changes.push_back("erase labels at " + sites_text(erased_sites(std::get<dsl::Erase>(change), bound)));
      }
    }
    edits.push_back({{"edit", edit.name},
                     {"method", std::string(dsl::traits(edit.method.method).name)},
                     {"changes", std::move(changes)}});
  }
  return edits;
}

ordered_json explain_circuits(const Plan& plan, const BoundRules& bound, const PassCost& cost) {
  ordered_json circuits = ordered_json::array();
  for (const auto& [id, asked] : plan.circuits) {
    const auto& declared = bound.rules->circuits[id];
    std::int64_t tokens = 0;
    for (const auto& pair : bound.circuits[id].pairs) tokens += std::ssize(pair.clean.tokens);
    const std::string what = declared.keep.nodes ? "nodes" : "edges";
    circuits.push_back({{"circuit", declared.name},
                        {"method", std::string(dsl::circuit_method_name(declared.method.method))},
                        {"pairs", bound.circuits[id].pairs.size()},
                        {"tokens", tokens},  // of the clean prompts; the corrupt ones have as many
                        {what, bound.circuits[id].kept},
                        {"model_" + what, bound.circuits[id].of}});
    if (!declared.method.of_latents()) continue;
    auto& autoencoders = circuits.back()["autoencoders"] = ordered_json::array();
    for (const auto& folder : bound.circuits[id].autoencoders) {
      const AutoencoderCard& card = bound.autoencoders.at(folder);
      // Encoding what is there, and decoding what is left out: a product each.
      autoencoders.push_back({{"site", dsl::to_string(card.site)},
                              {"latents", card.d_sae},
                              {"flops_per_token", 4.0 * static_cast<double>(card.d_in * card.d_sae)},
                              {"share_of_pass", 4.0 * static_cast<double>(card.d_in * card.d_sae) / cost.token()}});
    }
  }
  return circuits;
}

/// What attacks search for before the plan, and how many sequences that takes at most.
ordered_json explain_searches(const BoundRules& bound) {
  std::map<std::pair<dsl::CheckId, std::size_t>, std::pair<std::int64_t, std::int64_t>> found;
  for (const auto& [key, attacked] : bound.attacked) {
    const auto& attacks = bound.rules->checks[key.check].under_attacks;
    for (std::size_t place = 0; place < attacks.size(); ++place) {
      const auto& attack = attacks[place];
      if (!attack.searches() || attack.steps == 0) continue;
      const bool suffix = attack.kind == dsl::AttackKind::suffix_search;
      const std::int64_t tries = suffix ? 2 + attack.steps * (1 + attack.candidates) : 2 + attack.steps;
      auto& [prompts, sequences] = found[{key.check, place}];
      for (const auto& prompt : attacked.prompts) {
        ++prompts;
        sequences += tries * (attack.toward || key.facts ? 1 : std::ssize(prompt.answers));
      }
    }
  }
  ordered_json searches = ordered_json::array();
  for (const auto& [where, counts] : found) {
    const auto& check = bound.rules->checks[where.first];
    searches.push_back({{"check", check.name},
                        {"attack", check.under_attacks[where.second].text},
                        {"prompts", counts.first},
                        {"sequences", counts.second}});
  }
  return searches;
}

std::string set_name(const BoundRules& bound, dsl::PromptsId id) {
  const std::string& name = bound.rules->prompts[id].name;
  return name.empty() ? "a list of prompts" : name;
}

/// What the conditions in force compare features with, once each.
std::vector<dsl::Quantile> quantiles(const Plan& plan) {
  std::vector<dsl::Quantile> found;
  std::set<std::tuple<dsl::FeatureId, dsl::PromptsId, double>> seen;
  for (const auto& state : plan.states) {
    for (const auto& sentence : state.sentences) {
      if (!sentence.sentence.condition) continue;
      dsl::each_condition(*sentence.sentence.condition, [&](const dsl::Condition& part) {
        const auto* comparison = std::get_if<dsl::Comparison>(&part.node);
        if (comparison == nullptr) return;
        for (const auto* operand : {&comparison->left, &comparison->right}) {
          const auto* quantile = std::get_if<dsl::Quantile>(operand);
          if (quantile != nullptr && seen.emplace(quantile->feature, quantile->prompts, quantile->p).second)
            found.push_back(*quantile);
        }
      });
    }
  }
  return found;
}

/// What is run before the plan: the prompts that features are built from, the texts of quantiles, the sink states.
ordered_json explain_building(const Plan& plan, const BoundRules& bound, const PassCost& cost) {
  ordered_json building = ordered_json::array();
  const auto add = [&](std::string what, std::int64_t sequences, const PassCost::Work& work,
                       const std::optional<dsl::Site>& stop_after) {
    building.push_back({{"for", std::move(what)},
                        {"sequences", sequences},
                        {"tokens", work.tokens},
                        {"stops_after", stop_after ? ordered_json(dsl::to_string(*stop_after)) : ordered_json(nullptr)},
                        {"flops", cost.of(work, stop_after)}});
  };
  for (const BuildRun& run : build_runs(bound, plan.features)) {
    const auto& prompts = bound.prompts[run.prompts];
    add(set_name(bound, run.prompts), std::ssize(prompts), PassCost::work(prompts), run.stop_after);
  }
  for (const auto& quantile : quantiles(plan)) {
    const Plan values = quantile_plan(quantile, bound);
    for (const Run& run : values.runs) {
      add("quantile(" + dsl::number_text(100 * quantile.p) + "%, " + set_name(bound, quantile.prompts) + ") of " +
              bound.feature_name(quantile.feature),
          std::ssize(run.wants), PassCost::work(run, values), run.stop_after);
    }
  }
  if (needs_sink_states(bound, plan.features)) {
    constexpr auto kTokens = static_cast<std::int64_t>(model::kSinkSequences);
    add("the model's sink states, once", kTokens, {kTokens, kTokens, 0}, dsl::Site{dsl::SiteKind::final_norm, -1, -1});
  }
  return building;
}

}  // namespace

std::set<dsl::FeatureId> first_position_features(const Plan& plan) { return first_position_plan(plan).features; }

FirstPositionChanges first_position_changes(Session& session, const Plan& plan) {
  const Plan firsts = first_position_plan(plan);
  const Evidence evidence = session.carry_out(firsts);
  FirstPositionChanges changes;
  for (StateId id = 0; id < firsts.states.size(); ++id) {
    const auto& sentences = firsts.states[id].sentences;
    for (std::size_t i = 0; i < sentences.size(); ++i) {
      auto& by_site = changes[{sentences[i].rule, sentences[i].sentence.text}];
      for (const auto& [site, activity] : evidence.state(id).activity[i]) {
        by_site[site] = std::max(by_site[site], activity.relative_change_at_0 / static_cast<double>(activity.firsts));
      }
    }
  }
  return changes;
}

ordered_json explain(const Plan& plan, const BoundRules& bound, const FirstPositionChanges& changes) {
  ordered_json features = ordered_json::array();
  for (dsl::FeatureId id : plan.features) {
    features.push_back({{"feature", bound.feature_name(id)}, {"site", dsl::to_string(bound.feature_sites[id])}});
    const auto selection = bound.selections.find(id);
    if (selection == bound.selections.end() || !selection->second.chosen) continue;
    features.back()["selected_by"] = selection_method(selection->second);
    for (const auto& score : selection->second.scores) {
      ordered_json scored = {{"site", dsl::to_string(score.site)}};
      if (score.left_out.empty()) {
        scored["auroc"] = score.auroc;
        scored["separation"] = score.separation;
      } else {
        scored["left_out"] = score.left_out;
      }
      features.back()["candidates"].push_back(std::move(scored));
    }
  }
  ordered_json states = ordered_json::array();
  std::map<StateId, std::size_t> controls;
  for (const auto& state : plan.states) {
    if (state.controls) ++controls[*state.controls];
  }
  const PassCost cost(bound.card->config);
  double total_flops = 0, building_flops = 0, generating_flops = 0;
  ordered_json building = explain_building(plan, bound, cost);
  for (const auto& each : building) building_flops += each["flops"].get<double>();
  for (StateId id = 0; id < plan.states.size(); ++id) {
    if (plan.states[id].controls) continue;
    ordered_json runs = ordered_json::array();
    for (const auto& run : plan.runs) {
      if (run.state != id) continue;
      std::int64_t asked = 0;
      for (const auto& [sequence, wants] : run.wants) asked += std::ssize(plan.sequences[sequence].tokens);
      const auto work = PassCost::work(run, plan);
      const double flops = cost.of(work, run.stop_after);
      total_flops += flops * (controls.contains(id) ? 1 + static_cast<double>(controls[id]) : 1);
      runs.push_back(
          {{"sequences", run.wants.size()},
           {"passes", run.batches.size()},
           {"tokens", work.tokens},
           {"tokens_shared", asked - work.tokens},
           {"logits", work.logits},
           {"stops_after", run.stop_after ? ordered_json(dsl::to_string(*run.stop_after)) : ordered_json(nullptr)},
           {"flops", flops},
           {"flops_saved_by_stopping", cost.of(work, std::nullopt) - flops}});
    }
    std::int64_t texts = 0;
    PassCost::Work generated;
    for (const auto& key : plan.generations) {
      if (key.state != id) continue;
      texts += key.samples;
      const auto work = PassCost::work(key, plan);
      generated = {generated.tokens + work.tokens, generated.pairs + work.pairs, generated.logits + work.logits};
    }
    const double flops_to_generate = cost.of(generated, std::nullopt);
    generating_flops += flops_to_generate * (controls.contains(id) ? 1 + static_cast<double>(controls[id]) : 1);
    if (runs.empty() && texts == 0 && id != 0) continue;  // nothing is computed in it
    states.push_back({{"state", plan.states[id].label},
                      {"runs", std::move(runs)},
                      {"generated_texts", texts},
                      {"generated_tokens", generated.tokens},  // at most, prompts included
                      {"flops_generating", flops_to_generate},
                      {"controls", controls.contains(id) ? controls[id] : 0}});
  }
  ordered_json passes = ordered_json::array();
  for (const auto& pass : plan_passes()) {
    passes.push_back({{"pass", pass.name},
                      {"does", pass.does},
                      {"on", std::find(plan.passes.begin(), plan.passes.end(), pass.name) != plan.passes.end()}});
  }
  const auto counts = plan.counts();
  return {{"rules", explain_rules(plan, bound, changes)},
          {"edits", explain_edits(bound)},
          {"circuits", explain_circuits(plan, bound, cost)},
          {"searches", explain_searches(bound)},
          {"features", std::move(features)},
          {"building", std::move(building)},
          {"states", std::move(states)},
          {"passes", std::move(passes)},
          {"totals",
           {{"sequences", counts.sequences},
            {"passes", counts.passes},
            {"tokens", counts.tokens},
            {"tokens_saved", counts.tokens_saved},
            {"flops_per_token", cost.token()},
            {"flops", total_flops},
            {"flops_building", building_flops},
            {"flops_generating", generating_flops}}}};
}

std::string flops_text(double flops) {
  static constexpr std::array<std::string_view, 6> kUnits = {"", "k", "M", "G", "T", "P"};
  std::size_t unit = 0;
  for (; flops >= 1000 && unit + 1 < kUnits.size(); ++unit) flops /= 1000;
  std::ostringstream text;
  text << std::setprecision(3) << flops << " " << kUnits.at(unit) << "FLOP";
  return text.str();
}

std::string sentence_cost_text(const ordered_json& rule) {
  const auto& cost = rule["cost"];
  const auto& flops = cost["flops_per_token"];
  std::ostringstream text;
  if (flops.is_null()) {
    text << "work at run time that is not counted";
  } else if (flops > 0) {
    text << flops_text(flops) << " a token (" << std::setprecision(2) << 100 * cost["share_of_pass"].get<double>()
         << "% of its way through the layers)";
  } else {
    text << "nothing at run time";
  }
  text << "; it is in force on " << cost["tokens"] << " tokens of prompts";
  return text.str();
}

std::string building_text(const ordered_json& building) {
  std::ostringstream text;
  text << building["for"].get<std::string>() << ": " << building["sequences"] << " sequences, " << building["tokens"]
       << " tokens";
  if (!building["stops_after"].is_null()) text << " up to " << building["stops_after"].get<std::string>();
  text << ", " << flops_text(building["flops"]);
  return text.str();
}

std::string generation_text(const ordered_json& state) {
  std::ostringstream text;
  text << state["generated_texts"] << " texts generated: at most " << state["generated_tokens"]
       << " tokens, their prompts included, and " << flops_text(state["flops_generating"]);
  return text.str();
}

std::string costs_text(const ordered_json& totals) {
  std::string text = flops_text(totals["flops"]);
  if (totals["flops_building"] > 0) text += ", " + flops_text(totals["flops_building"]) + " to build features";
  if (totals["flops_generating"] > 0)
    text += ", at most " + flops_text(totals["flops_generating"]) + " to generate texts";
  return text;
}

std::string explanation_text(const ordered_json& explanation, const std::string& more) {
  std::ostringstream out;
  const auto text = [](const ordered_json& value) { return value.get<std::string>(); };
  if (!explanation["rules"].empty()) out << "Sentences\n";
  for (const auto& rule : explanation["rules"]) {
    const std::string name = text(rule["rule"]);
    out << "  " << (name.empty() ? "(change of an effect)" : name) << ": " << text(rule["sentence"]) << "\n";
    if (rule.contains("weight_edits")) out << "      weight edit at " << text(rule["weight_edits"]) << "\n";
    if (rule.contains("hooks")) out << "      hook at " << text(rule["hooks"]) << "\n";
    if (rule.contains("why")) out << "      because " << text(rule["why"]) << "\n";
    out << "      costs " << sentence_cost_text(rule) << "\n";
    if (rule.contains("would_save")) out << "      " << text(rule["would_save"]) << "\n";
    if (rule.contains("relative_change_at_0")) {
      const auto& at_0 = rule["relative_change_at_0"];
      out << "      at the first position it changes the vector by " << std::setprecision(2)
          << 100 * at_0["largest"].get<double>() << "% of its length at most (" << text(at_0["site"]) << ")\n";
    }
  }
  if (!explanation["edits"].empty()) out << "Edits\n";
  for (const auto& edit : explanation["edits"]) {
    out << "  " << text(edit["edit"]) << ", by " << text(edit["method"]) << "\n";
    for (const auto& change : edit["changes"]) out << "      " << text(change) << "\n";
  }
  if (!explanation["circuits"].empty()) out << "Circuits\n";
  for (const auto& circuit : explanation["circuits"]) {
    const std::string what = circuit.contains("nodes") ? "nodes" : "edges";
    out << "  " << text(circuit["circuit"]) << ", by " << text(circuit["method"]) << ": " << circuit[what] << " of "
        << circuit["model_" + what] << " " << what << ", on " << circuit["pairs"] << " pairs of " << circuit["tokens"]
        << " tokens a side\n";
    if (!circuit.contains("autoencoders")) continue;
    for (const auto& each : circuit["autoencoders"]) {
      out << "      " << each["latents"] << " latents and an error term at " << text(each["site"]) << ": "
          << std::setprecision(2) << 100 * each["share_of_pass"].get<double>() << "% of a pass at each token\n";
    }
  }
  if (!explanation["searches"].empty()) out << "Attacks searched for before the rest\n";
  for (const auto& search : explanation["searches"]) {
    out << "  check " << text(search["check"]) << ", " << text(search["attack"]) << ": " << search["prompts"]
        << " prompts, " << search["sequences"] << " sequences at most\n";
  }
  if (!explanation["features"].empty()) out << "Features built\n";
  for (const auto& feature : explanation["features"]) {
    out << "  " << text(feature["feature"]) << " at " << text(feature["site"]) << "\n";
    if (!feature.contains("candidates")) continue;
    out << "      the best by " << text(feature["selected_by"]) << ":\n";
    for (const auto& candidate : feature["candidates"]) {
      out << "        " << text(candidate["site"]) << "  ";
      if (candidate.contains("left_out")) {
        out << "left out: it " << text(candidate["left_out"]) << "\n";
        continue;
      }
      out << "AUROC " << std::setprecision(4) << candidate["auroc"].get<double>() << ", separation "
          << candidate["separation"].get<double>() << "\n";
    }
  }
  for (const auto& each : explanation["building"]) out << "      reads " << building_text(each) << "\n";
  out << more << "Model states\n";
  for (const auto& state : explanation["states"]) {
    out << "  " << text(state["state"]) << "\n";
    for (const auto& run : state["runs"]) {
      out << "      " << run["sequences"] << " sequences in " << run["passes"] << " passes, " << run["tokens"]
          << " tokens";
      if (run["tokens_shared"] > 0) out << " (" << run["tokens_shared"] << " more are shared prefixes)";
      out << ", " << run["logits"] << " logits";
      out << ", " << flops_text(run["flops"]);
      if (!run["stops_after"].is_null()) {
        out << "; stops after " << text(run["stops_after"]) << ", which saves "
            << flops_text(run["flops_saved_by_stopping"]);
      }
      out << "\n";
    }
    if (state["generated_texts"] > 0) out << "      " << generation_text(state) << "\n";
    if (state["controls"] > 0)
      out << "      the same for each of " << state["controls"]
          << " controls: random directions, the wrong sign, random positions\n";
  }
  out << "Plan passes\n";
  for (const auto& pass : explanation["passes"]) {
    out << "  " << text(pass["pass"]) << (pass["on"].get<bool>() ? "" : " (off)") << ": " << text(pass["does"]) << "\n";
  }
  const auto& totals = explanation["totals"];
  out << "In all " << totals["tokens"] << " tokens in " << totals["passes"] << " passes, controls included; "
      << totals["tokens_saved"] << " saved against computing every metric by itself; " << costs_text(totals)
      << "; a token takes " << flops_text(totals["flops_per_token"]) << " in the layers' maps\n";
  if (!explanation["edits"].empty() || !explanation["circuits"].empty() || !explanation["searches"].empty())
    out << "Not counted: solving edits, finding circuits, and attacks that search\n";
  return out.str();
}

}  // namespace proviso::runtime
