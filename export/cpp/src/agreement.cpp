#include "agreement.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "error.hpp"
#include "text.hpp"

namespace g2sd {
namespace {

double number_in(const Json& values, std::string_view key, double least, double most) {
    const double value = values.at(key).number();
    if (!std::isfinite(value) || value < least || value > most) {
        throw UserError(concat(key, " is ", value, "; it lies outside its range"));
    }
    return value;
}

std::vector<double> row_of(const Logits& logits, std::size_t image) {
    return {logits.row(image), logits.row(image) + logits.num_classes};
}

/// Equal rows agree (1), a row of zeros and another do not (0).
double cosine_of(const std::vector<double>& left, const std::vector<double>& right) {
    if (left == right) {
        return 1;
    }
    double dot = 0;
    double squares[2] = {0, 0};  // NOLINT(modernize-avoid-c-arrays,cppcoreguidelines-avoid-c-arrays)
    for (std::size_t i = 0; i < left.size(); ++i) {
        dot += left[i] * right[i];
        squares[0] += left[i] * left[i];
        squares[1] += right[i] * right[i];
    }
    const double norms = std::sqrt(squares[0]) * std::sqrt(squares[1]);
    return norms == 0 ? 0 : std::clamp(dot / norms, -1.0, 1.0);
}

std::vector<double> log_softmax(std::vector<double> logits) {
    const double largest = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (double& value : logits) {
        value -= largest;
        sum += std::exp(value);
    }
    for (double& value : logits) {
        value -= std::log(sum);
    }
    return logits;
}

double divergence_of(const std::vector<double>& left, const std::vector<double>& right) {
    const auto reference = log_softmax(left);
    const auto candidate = log_softmax(right);
    double sum = 0;
    for (std::size_t i = 0; i < reference.size(); ++i) {
        sum += std::exp(reference[i]) * (reference[i] - candidate[i]);
    }
    return std::max(sum, 0.0);  // rounding alone would make it negative near 0
}

std::ptrdiff_t decision_of(const std::vector<double>& logits) {
    return std::max_element(logits.begin(), logits.end()) - logits.begin();
}

Agreement measured(const Logits& reference, const Logits& candidate) {
    Agreement found;
    found.num_images = reference.num_images;
    double sum = 0;
    for (std::size_t image = 0; image < reference.num_images; ++image) {
        const auto left = row_of(reference, image);
        const auto right = row_of(candidate, image);
        for (std::size_t i = 0; i < left.size(); ++i) {
            const double difference = std::abs(left[i] - right[i]);
            found.max_abs_logit_diff = std::max(found.max_abs_logit_diff, difference);
            sum += difference;
        }
        found.flipped += decision_of(left) == decision_of(right) ? 0 : 1;
        found.min_cosine = std::min(found.min_cosine, cosine_of(left, right));
        found.mean_kl += divergence_of(left, right) / static_cast<double>(reference.num_images);
    }
    found.flipped_share = static_cast<double>(found.flipped) / static_cast<double>(found.num_images);
    found.mean_abs_logit_diff = sum / static_cast<double>(reference.values.size());
    return found;
}

std::string violations(const Agreement& found, const Tolerance& tolerance) {
    std::vector<std::string> reasons;
    if (found.max_abs_logit_diff > tolerance.max_abs_logit_diff) {
        reasons.push_back(concat("a logit differs by ", general(found.max_abs_logit_diff, 3), ", tolerated ",
                                 general(tolerance.max_abs_logit_diff, 3)));
    }
    if (found.flipped_share > tolerance.flipped_share) {
        reasons.push_back(concat(found.flipped, " of ", found.num_images, " decisions flip (",
                                 percent(found.flipped_share, 3), "), tolerated ",
                                 percent(tolerance.flipped_share, 3)));
    }
    if (found.min_cosine < tolerance.min_cosine) {
        reasons.push_back(concat("the cosine of an image's logits is ", general(found.min_cosine, 6),
                                 ", wanted at least ", general(tolerance.min_cosine, 6)));
    }
    if (tolerance.max_mean_kl && found.mean_kl > *tolerance.max_mean_kl) {
        reasons.push_back(concat("the mean KL divergence is ", general(found.mean_kl, 3), " nats, tolerated ",
                                 general(*tolerance.max_mean_kl, 3)));
    }
    return join(reasons, "; ");
}

std::size_t num_unusable(const Logits& logits) {
    std::size_t bad = 0;
    for (std::size_t image = 0; image < logits.num_images; ++image) {
        const float* row = logits.row(image);
        bad += std::all_of(row, row + logits.num_classes, [](float value) { return std::isfinite(value); }) ? 0 : 1;
    }
    return bad;
}

std::string shape_of(const Logits& logits) {
    return concat('[', logits.num_images, ", ", logits.num_classes, ']');
}

}  // namespace

Tolerance tolerance_from(const Json& values) {
    constexpr double any = std::numeric_limits<double>::max();
    for (const auto& member : values.object()) {
        const std::string& key = member.first;
        if (key != "max_abs_logit_diff" && key != "flipped_share" && key != "min_cosine" && key != "max_mean_kl") {
            throw UserError("tolerance: unknown key " + key);
        }
    }
    Tolerance tolerance;
    tolerance.max_abs_logit_diff = number_in(values, "max_abs_logit_diff", 0, any);
    tolerance.flipped_share = number_in(values, "flipped_share", 0, 1);
    if (values.find("min_cosine") != nullptr) {
        tolerance.min_cosine = number_in(values, "min_cosine", -1, 1);
    }
    if (const Json* kl = values.find("max_mean_kl"); kl != nullptr && !kl->is_null()) {
        tolerance.max_mean_kl = number_in(values, "max_mean_kl", 0, any);
    }
    return tolerance;
}

Json Agreement::to_json() const {
    return Json::Object{{"num_images", num_images},
                        {"flipped", flipped},
                        {"flipped_share", flipped_share},
                        {"max_abs_logit_diff", max_abs_logit_diff},
                        {"mean_abs_logit_diff", mean_abs_logit_diff},
                        {"min_cosine", min_cosine},
                        {"mean_kl", mean_kl}};
}

Judgement judge(const Logits& reference, const Logits& candidate, const Tolerance& tolerance) {
    if (reference.num_images != candidate.num_images || reference.num_classes != candidate.num_classes) {
        return {false,
                "the reference's logits have shape " + shape_of(reference) + ", the candidate's " + shape_of(candidate),
                std::nullopt};
    }
    if (reference.values.empty()) {
        return {false, "there are no images to compare", std::nullopt};
    }
    for (const auto& [who, logits] : {std::pair{"reference", &reference}, std::pair{"candidate", &candidate}}) {
        if (const std::size_t bad = num_unusable(*logits); bad > 0) {
            return {
                false,
                concat("the ", who, "'s logits are NaN or infinite for ", bad, " of ", logits->num_images, " images"),
                std::nullopt};
        }
    }
    const Agreement found = measured(reference, candidate);
    std::string reason = violations(found, tolerance);
    const bool passed = reason.empty();
    return {passed, std::move(reason), found};
}

}  // namespace g2sd
