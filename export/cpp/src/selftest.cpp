#include "selftest.hpp"

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "bundle.hpp"
#include "error.hpp"
#include "image_file.hpp"
#include "runner.hpp"
#include "text.hpp"

namespace g2sd {
namespace {

Logits twice(Logits logits) {
    const Logits once = logits;
    logits.append(once);
    return logits;
}

Logits answers_of(Runner& runner, const ImageBatch& images) {
    Logits answers;
    for (std::size_t image = 0; image < images.count; ++image) {
        answers.append(runner.infer(images.some(image, 1)));
    }
    answers.append(runner.infer(images));
    return answers;
}

/// Why the image file does not become what it became at export; empty if it does.
std::string decoding_error(const Bundle& bundle, const ImageBatch& expected) {
    const ImageBatch found = fitted(decoded_png(bundle.read(sample_image_name)), bundle.preprocessing);
    int worst = 0;
    for (std::size_t i = 0; i < found.pixels.size(); ++i) {
        worst = std::max(worst, std::abs(int{found.pixels[i]} - int{expected.pixels[i]}));
    }
    return worst > 1 ? concat(sample_image_name, " decodes to pixels that differ by up to ", worst, " of 255") : "";
}

std::string reason_of(const Judgement& device) {
    return device.passed ? "" : "other answers than this variant gave at export: " + device.reason;
}

SelftestResult compared(const Bundle& bundle, const Variant& variant, Runner& runner) {
    const Sample sample = bundle.sample(variant);
    const Logits answers = answers_of(runner, sample.images);
    const Judgement judgement = judge(twice(sample.reference), answers, variant.tolerance);
    SelftestResult result{judgement.passed,  judgement.reason,    bundle.digest, variant.name,
                          runner.describe(), judgement.agreement, std::nullopt};
    if (result.passed && sample.golden && variant.device_tolerance) {
        const Judgement device = judge(twice(*sample.golden), answers, *variant.device_tolerance);
        result.device_agreement = device.agreement;
        result.reason = reason_of(device);
        result.passed = device.passed;
    }
    if (result.passed) {
        result.reason = decoding_error(bundle, sample.decoded);
        result.passed = result.reason.empty();
    }
    return result;
}

Json json_of(const std::optional<Agreement>& agreement) {
    return agreement ? agreement->to_json() : Json();
}

}  // namespace

Json SelftestResult::to_json() const {
    return Json::Object{{"verdict", passed ? "passed" : "failed"},
                        {"reason", reason},
                        {"bundle", bundle},
                        {"variant", variant},
                        {"runtime", runtime},
                        {"agreement", json_of(agreement)},
                        {"device_agreement", json_of(device_agreement)}};
}

SelftestResult run_selftest(const std::filesystem::path& folder, const std::string& variant, std::size_t threads) {
    try {
        const Bundle bundle = open_bundle(folder);
        const Variant& chosen = bundle.variant(variant);
        if (std::string failure = recorded_failure(bundle, chosen); !failure.empty()) {
            return {false, std::move(failure), bundle.digest, chosen.name};
        }
        return compared(bundle, chosen, *open_runner(bundle, chosen, threads));
    } catch (const IntegrityError& error) {
        return {false, error.what()};
    }
}

}  // namespace g2sd
