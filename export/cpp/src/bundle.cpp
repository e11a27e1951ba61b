#include "bundle.hpp"

#include <algorithm>
#include <set>

#include "error.hpp"
#include "manifest.hpp"
#include "npz.hpp"
#include "text.hpp"
#include "utf8.hpp"

namespace fs = std::filesystem;

namespace g2sd {
namespace {

constexpr std::string_view advice = "; copy or download the bundle again";

void check_files(const fs::path& folder, const std::map<std::string, FileRecord>& files) {
    for (const char* needed : {"labels.txt", "sample.npz", sample_image_name, "README.md", "sbom.cdx.json"}) {
        if (files.count(needed) == 0) {
            throw IntegrityError(concat((folder / "manifest.json").string(), ": does not list ", needed, advice));
        }
    }
    const auto problems = problems_of(folder, files, {"manifest.json", "manifest.sha256", "manifest.sig"});
    if (problems.empty()) {
        return;
    }
    std::vector<std::string> others;
    for (auto problem = std::next(problems.begin()); problem != problems.end(); ++problem) {
        others.push_back(problem->first);
    }
    const auto& [name, reason] = *problems.begin();
    const std::string more = others.empty() ? "" : concat(" (and ", others.size(), " more: ", join(others, ", "), ')');
    throw IntegrityError(concat((folder / name).string(), ": ", reason, more, advice));
}

std::vector<std::string> lines_of(std::string text) {
    if (!is_utf8(text)) {
        throw UserError("labels.txt is no UTF-8");
    }
    if (!text.empty() && text.back() == '\n') {
        text.pop_back();
    }
    std::vector<std::string> lines{""};
    for (const char letter : text) {
        if (letter == '\n') {
            lines.emplace_back();
        } else {
            lines.back() += letter;
        }
    }
    return lines;
}

void check_source(const Bundle& bundle, const Variant& variant) {
    const Json* source = variant.settings.find("source");
    const Json* recorded = variant.settings.find("source_sha256");
    const auto held = bundle.files.find(source != nullptr && source->is_string() ? source->string() : "");
    const std::string path = (bundle.folder / variant.file).string();
    if (held == bundle.files.end()) {
        throw IntegrityError(concat(path, ": was built from a model which the bundle does not hold", advice));
    }
    if (recorded == nullptr || !recorded->is_string() || recorded->string() != held->second.sha256) {
        throw IntegrityError(concat(path, ": stale: was built from another ", held->first,
                                    " than the bundle's; build the engine again"));
    }
}

void check_variants(const Bundle& bundle) {
    std::set<std::string> names;
    for (const Variant& variant : bundle.variants) {
        if (!names.insert(variant.name).second) {
            throw IntegrityError("two variants are called " + variant.name);
        }
        if (bundle.files.count(variant.file) == 0) {
            throw IntegrityError(concat("does not list ", variant.file, " of variant ", variant.name));
        }
        if (variant.settings.find("source") != nullptr || variant.runtime.rfind("tensorrt", 0) == 0) {
            check_source(bundle, variant);
        }
    }
    if (names.count(bundle.default_variant) == 0) {
        throw IntegrityError("the default is " + bundle.default_variant + ", which is none of its variants");
    }
}

Bundle bundle_from(const fs::path& folder, const Manifest& manifest, const std::map<std::string, FileRecord>& files) {
    const Json& values = manifest.values;
    Bundle bundle;
    bundle.folder = folder;
    bundle.digest = manifest.digest;
    bundle.name = values.at("name").string();
    bundle.verdict = values.at("verdict").string();
    bundle.reason = values.at("reason").string();
    bundle.default_variant = values.at("default").string();
    bundle.preprocessing = preprocessing_from(values.at("preprocessing"));
    bundle.files = files;
    bundle.class_names = lines_of(text_of(bundle.read("labels.txt")));
    for (const Json& entry : values.at("variants").array()) {
        bundle.variants.push_back(variant_from(entry));
    }
    if (bundle.verdict != "passed" && bundle.verdict != "failed" && bundle.verdict != "not_run") {
        throw UserError("verdict is " + bundle.verdict + "; it must be one of passed, failed, not_run");
    }
    return bundle;
}

ImageBatch batch_from(Array<std::uint8_t> array, const Preprocessing& pre) {
    const std::vector<std::size_t> wanted{array.shape.empty() ? 0 : array.shape[0], pre.image_px, pre.image_px,
                                          pre.num_channels};
    if (array.shape != wanted || array.shape[0] == 0) {
        throw IntegrityError("sample.npz: its images are not of the size that the manifest gives");
    }
    return {array.shape[0], pre.image_px, pre.num_channels, std::move(array.values)};
}

Logits logits_from(Array<float> array, std::size_t num_images, std::size_t num_classes) {
    if (array.shape != std::vector<std::size_t>{num_images, num_classes}) {
        throw IntegrityError("sample.npz: its logits are not one row per image with one number per class");
    }
    return {num_images, num_classes, std::move(array.values)};
}

}  // namespace

const Variant& Bundle::variant(const std::string& wanted) const {
    const std::string& name_wanted = wanted.empty() ? default_variant : wanted;
    std::vector<std::string> have;
    for (const Variant& candidate : variants) {
        if (candidate.name == name_wanted) {
            return candidate;
        }
        have.push_back(candidate.name);
    }
    throw UserError(concat(folder.string(), ": has no variant '", name_wanted, "'; it has ", join(have, ", ")));
}

Bytes Bundle::read(const std::string& file) const {
    return read_checked(folder, file, files.at(file));
}

Sample Bundle::sample(const Variant& of) const {
    try {
        const NpzFile arrays(read("sample.npz"));
        auto decoded = arrays.bytes("decoded");
        decoded.shape.insert(decoded.shape.begin(), 1);
        Sample sample;
        sample.images = batch_from(arrays.bytes("images"), preprocessing);
        sample.decoded = batch_from(std::move(decoded), preprocessing);
        sample.reference = logits_from(arrays.floats("logits"), sample.images.count, class_names.size());
        if (const std::string key = "logits." + of.name; arrays.holds(key)) {
            sample.golden = logits_from(arrays.floats(key), sample.images.count, class_names.size());
        }
        return sample;
    } catch (const IntegrityError&) {
        throw;
    } catch (const UserError& error) {
        throw IntegrityError(concat("sample.npz: ", error.what(), advice));
    }
}

Bundle open_bundle(const fs::path& folder) {
    const Manifest manifest = read_manifest(folder);
    try {
        const auto files = records_from(manifest.values);
        check_files(folder, files);
        Bundle bundle = bundle_from(folder, manifest, files);
        check_variants(bundle);
        return bundle;
    } catch (const IntegrityError&) {
        throw;
    } catch (const UserError& error) {
        throw IntegrityError(concat((folder / "manifest.json").string(), ": ", error.what(), advice));
    }
}

std::string recorded_failure(const Bundle& bundle, const Variant& variant) {
    if (variant.verdict == "failed") {
        return concat("variant ", variant.name, " failed its proof at export: ", variant.reason);
    }
    if (bundle.verdict == "failed") {
        return "the bundle failed its proof at export: " + bundle.reason;
    }
    return "";
}

void refuse_failed(const Bundle& bundle, const Variant& variant) {
    if (const std::string failure = recorded_failure(bundle, variant); !failure.empty()) {
        throw UserError(concat(bundle.folder.string(), ": ", failure));
    }
}

}  // namespace g2sd
