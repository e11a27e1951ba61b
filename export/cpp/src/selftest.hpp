#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>

#include "agreement.hpp"
#include "json.hpp"

namespace g2sd {

/// Outcome of a self-test of one variant; the same fields as Python's.
struct SelftestResult {
    bool passed = false;
    std::string reason;
    std::string bundle{};   ///< SHA-256 of the manifest; empty when the files could not be trusted
    std::string variant{};  ///< its name; empty likewise
    std::string runtime{};  ///< empty when it was not reached
    std::optional<Agreement> agreement{};
    std::optional<Agreement> device_agreement{};

    Json to_json() const;
};

/// Verify every file's digest, run the stored sample one by one and as one batch, and compare with the expected logits.
///
/// A changed, truncated, missing or unlisted file is a failed verdict, and so is a proof that failed at export.
/// Throws UserError where there is no such variant, or its runtime is not in this program or cannot load the model.
SelftestResult run_selftest(const std::filesystem::path& folder, const std::string& variant, std::size_t threads);

}  // namespace g2sd
