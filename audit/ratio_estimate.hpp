#pragma once

// Ratios of sums over prompts: means, mean log-likelihoods, relative changes.

#include <cstdint>
#include <span>
#include <vector>

#include "audit/statistics.hpp"

namespace proviso::audit {

/// How the interval of a ratio is made.
///
/// student_t: the residuals' variance over clusters with the correction of Bell and McCaffrey (Survey Methodology 28,
/// 2002), "CR2", and Student's t on their Satterthwaite degrees for the intraclass correlation that the residuals show
/// (Imbens and Kolesár, Review of Economics and Statistics 98, 2016). With clusters of one size that is Student's t of
/// the clusters' means; with unequal ones the degrees are fewer.
///
/// bootstrap_t: resamples of clusters (of prompts, where none repeats) studentised (Efron and Tibshirani 1993, chapter
/// 12), and no end nearer than that of student_t: the bootstrap alone is too narrow for heavy tails, Student's t alone
/// for skew (docs/statistics.md).
enum class RatioMethod { bootstrap_t, student_t };

/// Σ numerator / Σ denominator, one of each a sample; `samples` gives the clusters alone. Fewer than 8 prompts have no
/// interval by bootstrap_t, nor do fewer than about 6 that differ from the one value of all others; fewer than 8
/// clusters that repeat have that of student_t.
Estimate estimate_ratio(std::span<const Sample> samples, std::vector<double> numerator, std::vector<double> denominator,
                        RatioMethod method, double confidence, std::uint64_t seed);

}  // namespace proviso::audit
