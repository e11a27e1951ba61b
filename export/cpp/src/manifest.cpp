#include "manifest.hpp"

#include <array>
#include <set>

#include "error.hpp"
#include "sha256.hpp"
#include "text.hpp"

namespace g2sd {
namespace {

constexpr std::int64_t format = 2;
constexpr std::string_view advice = "; copy or download the bundle again";

constexpr std::array<const char*, 11> keys{"name",          "version", "verdict",  "reason",     "target", "licences",
                                           "preprocessing", "default", "variants", "provenance", "files"};
constexpr std::array<std::pair<const char*, const char*>, 5> fixed{{{"labels", "labels.txt"},
                                                                    {"sample", "sample.npz"},
                                                                    {"sample_image", "sample.png"},
                                                                    {"model_card", "README.md"},
                                                                    {"sbom", "sbom.cdx.json"}}};

/// The first word of manifest.sha256, which `sha256sum -c` reads too.
std::string recorded_digest(const std::filesystem::path& path) {
    try {
        const std::string line = one_line(text_of(read_file(path)));
        return line.substr(0, line.find(' '));
    } catch (const UserError&) {
        return "";
    }
}

void check_keys(const Json& values) {
    for (const char* key : keys) {
        values.at(key);
    }
    for (const auto& [key, name] : fixed) {
        if (values.at(key).string() != name) {
            throw UserError(concat(key, " is ", values.at(key).string(), ", not ", name));
        }
    }
}

const std::string& one_of(const Json& values, std::string_view key, const std::set<std::string>& known) {
    const std::string& value = values.at(key).string();
    if (known.count(value) == 0) {
        throw UserError(concat(key, " is ", value, "; it must be one of ", join({known.begin(), known.end()}, ", ")));
    }
    return value;
}

void check_known(const Json& values) {
    static const std::set<std::string> known{
        "name",    "file",   "precision", "runtime",   "settings",         "input",  "output",
        "verdict", "reason", "hops",      "tolerance", "device_tolerance", "latency"};
    for (const auto& member : values.object()) {
        if (known.count(member.first) == 0) {
            throw UserError("unknown key " + member.first);
        }
    }
}

Variant read_variant(const Json& values) {
    check_known(values);
    values.at("hops").array();
    values.at("latency");
    values.at("settings").object();
    const Json& input = values.at("input");
    Variant variant;
    variant.name = values.at("name").string();
    variant.file = values.at("file").string();
    variant.precision = one_of(values, "precision", {"fp32", "bf16", "fp16", "int8", "fp8"});
    variant.runtime = one_of(values, "runtime", {"onnxruntime", "openvino", "tensorrt", "tensorrt_rtx"});
    variant.settings = values.at("settings");
    variant.input = {input.at("name").string(), one_of(input, "dtype", {"uint8", "float32"}),
                     one_of(input, "layout", {"NHWC", "NCHW"})};
    variant.output = values.at("output").at("name").string();
    variant.verdict = one_of(values, "verdict", {"passed", "failed", "not_run"});
    variant.reason = values.at("reason").string();
    variant.tolerance = tolerance_from(values.at("tolerance"));
    if (const Json& device = values.at("device_tolerance"); !device.is_null()) {
        variant.device_tolerance = tolerance_from(device);
    }
    return variant;
}

}  // namespace

Manifest read_manifest(const std::filesystem::path& folder) {
    const std::filesystem::path path = folder / "manifest.json";
    if (!std::filesystem::is_regular_file(path)) {
        throw IntegrityError(concat(path.string(), ": missing, so this is no bundle", advice));
    }
    const Bytes content = read_file(path);
    const std::string digest = sha256_of(content);
    if (recorded_digest(folder / "manifest.sha256") != digest) {
        throw IntegrityError(
            concat(path.string(), ": does not match manifest.sha256, so one of them was changed", advice));
    }
    Json values;
    const Json* found = nullptr;
    try {
        values = parse_json(text_of(content));
        found = values.find("format");
    } catch (const UserError& error) {
        throw IntegrityError(concat(path.string(), ": ", error.what(), advice));
    }
    if (found == nullptr || !found->is_integer() || found->integer() != format) {
        throw UserError(concat(path.string(), ": has format ", found == nullptr ? "none" : found->dump(),
                               "; this program reads format ", format,
                               "; use the one of the release that wrote the bundle"));
    }
    if (values.find("task") != nullptr) {
        throw UserError(concat(path.string(), ": its model is no classifier, and this program runs classifiers only; ",
                               "run the bundle's own code: python -m edge"));
    }
    try {
        check_keys(values);
    } catch (const UserError& error) {
        throw IntegrityError(concat(path.string(), ": ", error.what(), advice));
    }
    return {std::move(values), digest};
}

std::map<std::string, FileRecord> records_from(const Json& values) {
    std::map<std::string, FileRecord> records;
    for (const auto& [name, record] : values.at("files").object()) {
        records.emplace(name, FileRecord{record.at("sha256").string(), record.at("bytes").integer()});
    }
    return records;
}

Variant variant_from(const Json& values) {
    try {
        return read_variant(values);
    } catch (const UserError& error) {
        const Json* name = values.find("name");
        throw UserError(concat("variant ", name != nullptr ? name->dump() : "without a name", ": ", error.what()));
    }
}

}  // namespace g2sd
