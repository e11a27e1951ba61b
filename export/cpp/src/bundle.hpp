#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "agreement.hpp"
#include "files.hpp"
#include "image.hpp"
#include "json.hpp"
#include "preprocess.hpp"

namespace g2sd {

/// What the manifest says of a model's input.
struct InputSpec {
    std::string name;
    std::string dtype;   ///< uint8 or float32
    std::string layout;  ///< NHWC or NCHW
};

/// One way of running the model; see `Variant` of the Python package.
struct Variant {
    std::string name;
    std::string file;
    std::string precision;
    std::string runtime;
    Json settings;
    InputSpec input;
    std::string output;
    std::string verdict;
    std::string reason;
    Tolerance tolerance;
    std::optional<Tolerance> device_tolerance;
};

/// Real images with the answers that the reference and the variants gave at export.
struct Sample {
    ImageBatch images;
    ImageBatch decoded;  ///< one image: what sample.png must decode to
    Logits reference;
    std::optional<Logits> golden;  ///< of the variant asked for; none where it did not run at export
};

/// A bundle whose every file was compared with the manifest; made by `open_bundle`.
struct Bundle {
    std::filesystem::path folder;
    std::string digest;  ///< SHA-256 of manifest.json: the identity of the bundle
    std::string name;
    std::string verdict;
    std::string reason;
    std::string default_variant;
    Preprocessing preprocessing;
    std::vector<std::string> class_names;
    std::vector<Variant> variants;
    std::map<std::string, FileRecord> files;

    /// The variant of this name, or the default one where it is empty. Throws UserError where there is none.
    const Variant& variant(const std::string& wanted) const;

    /// A file, checked as it is read. Throws IntegrityError.
    Bytes read(const std::string& file) const;

    /// Throws IntegrityError where the arrays do not fit the manifest.
    Sample sample(const Variant& of) const;
};

inline constexpr const char* sample_image_name = "sample.png";

/// Read a bundle of format 2 and compare every file with its digest.
///
/// Throws IntegrityError where a file is missing, changed or not listed, an engine is stale, or the manifest cannot be
/// read; UserError for another format.
Bundle open_bundle(const std::filesystem::path& folder);

/// Throws UserError with the recorded reason where the proof of the bundle or of the variant failed.
void refuse_failed(const Bundle& bundle, const Variant& variant);

/// Why the proof made at export does not stand for this variant; empty where it does.
std::string recorded_failure(const Bundle& bundle, const Variant& variant);

}  // namespace g2sd
