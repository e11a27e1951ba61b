#include "timing.hpp"

#include <algorithm>
#include <chrono>
#include <numeric>

namespace g2sd {

std::vector<double> measured_ms(const std::function<void()>& work, std::size_t warmup, std::size_t repeats) {
    using Clock = std::chrono::steady_clock;
    for (std::size_t i = 0; i < warmup; ++i) {
        work();
    }
    std::vector<double> samples;
    samples.reserve(repeats);
    for (std::size_t i = 0; i < repeats; ++i) {
        const auto start = Clock::now();
        work();
        samples.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
    }
    return samples;
}

double percentile(const std::vector<double>& sorted, double q) {
    const double at = q / 100 * static_cast<double>(sorted.size() - 1);
    const auto below = static_cast<std::size_t>(at);
    const std::size_t above = std::min(below + 1, sorted.size() - 1);
    return sorted[below] + (at - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

Json::Object summary_of(std::vector<double> samples_ms, std::size_t batch) {
    std::sort(samples_ms.begin(), samples_ms.end());
    const double mean =
        std::accumulate(samples_ms.begin(), samples_ms.end(), 0.0) / static_cast<double>(samples_ms.size());
    return {{"p50_ms", percentile(samples_ms, 50)}, {"p90_ms", percentile(samples_ms, 90)},
            {"p99_ms", percentile(samples_ms, 99)}, {"mean_ms", mean},
            {"min_ms", samples_ms.front()},         {"images_per_s", 1000 * static_cast<double>(batch) / mean},
            {"num_samples", samples_ms.size()}};
}

}  // namespace g2sd
