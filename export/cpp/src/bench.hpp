#pragma once

#include <cstddef>
#include <string>

#include "bundle.hpp"
#include "json.hpp"

namespace g2sd {

/// What to time.
struct BenchSettings {
    std::size_t batch = 1;      ///< images per call
    std::size_t warmup = 10;    ///< calls of each variant before anything is timed
    std::size_t repeats = 100;  ///< timed calls of each variant, spread over rounds
    std::size_t threads = 1;    ///< of a runtime on the CPU
};

/// Time variants in turn, so that whatever else the machine does meets all of them alike.
///
/// Timed is the network alone, from its prepared input to logits on the host; the input is made before, as in Python's
/// bench. An empty `variant` takes every one that this program can run and that did not fail its proof; the others keep
/// their reason. Returns `bundle`, `machine` and `results`. Throws UserError where the one that was named, or none, can
/// be run.
Json run_bench(const Bundle& bundle, const std::string& variant, const BenchSettings& settings);

}  // namespace g2sd
