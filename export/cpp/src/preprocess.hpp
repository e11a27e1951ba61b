#pragma once

#include <cstddef>
#include <vector>

#include "image.hpp"
#include "json.hpp"
#include "resample.hpp"

namespace g2sd {

/// How an image becomes the network's input; see `Preprocessing` of the Python package.
struct Preprocessing {
    std::size_t image_px = 0;      ///< side of the square network input
    std::size_t resize_px = 0;     ///< short side after the resize and before the centre crop
    std::size_t num_channels = 0;  ///< 1 (grey) or 3 (RGB)
    std::vector<float> mean;       ///< per channel, in units of pixel / 255
    std::vector<float> std;
    Filter interpolation = Filter::bicubic;
};

/// Throws UserError where a key is missing, or a value is outside its range.
Preprocessing preprocessing_from(const Json& values);

/// Convert to grey or RGB, resize the short side to `resize_px`, crop the centre: one image, a batch of one.
///
/// Throws UserError for an image too narrow to be resized.
ImageBatch fitted(const Image& image, const Preprocessing& pre);

}  // namespace g2sd
