#pragma once

#include <cstddef>
#include <vector>

namespace g2sd {

/// One row of logits per image.
struct Logits {
    std::size_t num_images = 0;
    std::size_t num_classes = 0;
    std::vector<float> values;

    const float* row(std::size_t image) const { return values.data() + image * num_classes; }

    void append(const Logits& more) {
        num_images += more.num_images;
        num_classes = more.num_classes;
        values.insert(values.end(), more.values.begin(), more.values.end());
    }
};

}  // namespace g2sd
