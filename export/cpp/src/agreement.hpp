#pragma once

#include <optional>
#include <string>

#include "json.hpp"
#include "logits.hpp"

namespace g2sd {

/// How far logits may differ from a reference's; see `ParityTolerance` of the Python package.
struct Tolerance {
    double max_abs_logit_diff = 0;      ///< of any logit
    double flipped_share = 0;           ///< of the images, in [0, 1]
    double min_cosine = -1;             ///< of an image's two logit vectors
    std::optional<double> max_mean_kl;  ///< nats; none tolerates any
};

/// Throws UserError where a key is missing or unknown, or a value is outside its range.
Tolerance tolerance_from(const Json& values);

/// How two sets of logits for the same images compare, computed in double precision.
struct Agreement {
    std::size_t num_images = 0;
    std::size_t flipped = 0;  ///< images whose largest logit is another class
    double flipped_share = 0;
    double max_abs_logit_diff = 0;
    double mean_abs_logit_diff = 0;
    double min_cosine = 1;
    double mean_kl = 0;  ///< KL(reference || candidate) between the softmaxes, nats

    Json to_json() const;
};

struct Judgement {
    bool passed = false;
    std::string reason;  ///< empty where it passed
    std::optional<Agreement> agreement;
};

/// Decide whether `candidate` stands for `reference`; anything that cannot be compared fails.
Judgement judge(const Logits& reference, const Logits& candidate, const Tolerance& tolerance);

}  // namespace g2sd
