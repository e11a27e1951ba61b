#pragma once

#include <cstddef>
#include <functional>
#include <vector>

#include "json.hpp"

namespace g2sd {

/// Latency of each call of `work` in ms, after so many calls that are not timed.
std::vector<double> measured_ms(const std::function<void()>& work, std::size_t warmup, std::size_t repeats);

/// The q-th percentile, q in [0, 100], with linear interpolation between samples. The samples must be sorted and not
/// empty.
double percentile(const std::vector<double>& sorted, double q);

/// p50_ms, p90_ms, p99_ms, mean_ms, min_ms, images_per_s and num_samples.
Json::Object summary_of(std::vector<double> samples_ms, std::size_t batch);

}  // namespace g2sd
