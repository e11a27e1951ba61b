#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "json.hpp"
#include "logits.hpp"

namespace g2sd {

/// One class and how probable it is.
struct Prediction {
    std::size_t index = 0;
    std::string name;
    double probability = 0;  ///< softmax of the logits, in [0, 1]

    Json to_json() const;
};

/// The `top_k` most probable classes of the first image, the most probable first.
std::vector<Prediction> best_classes(const Logits& logits, const std::vector<std::string>& class_names,
                                     std::size_t top_k);

}  // namespace g2sd
