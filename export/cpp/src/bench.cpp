#include "bench.hpp"

#include <sys/utsname.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "error.hpp"
#include "runner.hpp"
#include "text.hpp"
#include "timing.hpp"

namespace g2sd {
namespace {

constexpr std::size_t most_rounds = 5;
constexpr std::size_t warmup_of_a_turn = 2;

/// A variant that is timed, or why it is not.
struct Entry {
    std::string variant;
    std::unique_ptr<Runner> runner;
    std::string reason;
    std::vector<double> samples_ms;
};

Entry opened(const Bundle& bundle, const Variant& variant, std::size_t threads) {
    Entry entry{variant.name, nullptr, recorded_failure(bundle, variant), {}};
    if (entry.reason.empty()) {
        try {
            entry.runner = open_runner(bundle, variant, threads);
        } catch (const UserError& error) {
            entry.reason = error.what();
        }
    }
    return entry;
}

std::vector<Entry> all_opened(const Bundle& bundle, const std::string& named, std::size_t threads) {
    std::vector<Entry> entries;
    std::vector<std::string> reasons;
    for (const Variant& variant : bundle.variants) {
        if (named.empty() || variant.name == bundle.variant(named).name) {
            entries.push_back(opened(bundle, variant, threads));
            if (entries.back().runner == nullptr) {
                reasons.push_back(entries.back().reason);
            }
        }
    }
    if (reasons.size() == entries.size()) {
        throw UserError(join(reasons, "; "));
    }
    return entries;
}

void time_in_turn(std::vector<Entry>& entries, const BenchSettings& settings) {
    const std::size_t rounds = std::min(most_rounds, settings.repeats);
    for (std::size_t round = 0; round < rounds; ++round) {
        const std::size_t calls = settings.repeats * (round + 1) / rounds - settings.repeats * round / rounds;
        for (Entry& entry : entries) {
            if (entry.runner != nullptr) {
                const std::size_t warmup = warmup_of_a_turn + (round == 0 ? settings.warmup : 0);
                const auto more = measured_ms([&entry] { entry.runner->forward(); }, warmup, calls);
                entry.samples_ms.insert(entry.samples_ms.end(), more.begin(), more.end());
            }
        }
    }
}

Json result_of(const Entry& entry, const ImageBatch& images, const BenchSettings& settings) {
    if (entry.runner == nullptr) {
        return Json::Object{{"variant", entry.variant}, {"reason", entry.reason}};
    }
    auto prepare_ms =
        measured_ms([&] { entry.runner->prepare(images); }, 1, std::min<std::size_t>(settings.repeats, 20));
    std::sort(prepare_ms.begin(), prepare_ms.end());
    Json::Object values{{"variant", entry.variant},
                        {"runtime", entry.runner->describe()},
                        {"threads", settings.threads},
                        {"batch", settings.batch}};
    const Json::Object summary = summary_of(entry.samples_ms, settings.batch);
    values.insert(values.end(), summary.begin(), summary.end());
    values.emplace_back("prepare_p50_ms", percentile(prepare_ms, 50));
    return values;
}

Json machine() {
    utsname names{};
    uname(&names);
    return Json::Object{{"system", std::string(std::begin(names.sysname))},
                        {"machine", std::string(std::begin(names.machine))},
                        {"cpus", available_cpus()}};
}

}  // namespace

Json run_bench(const Bundle& bundle, const std::string& variant, const BenchSettings& settings) {
    std::vector<Entry> entries = all_opened(bundle, variant, settings.threads);
    const ImageBatch images = bundle.sample(bundle.variant(variant)).images.some(0, settings.batch);
    for (Entry& entry : entries) {
        if (entry.runner != nullptr) {
            entry.runner->prepare(images);
        }
    }
    time_in_turn(entries, settings);
    Json::Array results;
    for (const Entry& entry : entries) {
        results.push_back(result_of(entry, images, settings));
    }
    return Json::Object{{"bundle", bundle.digest}, {"machine", machine()}, {"results", std::move(results)}};
}

}  // namespace g2sd
