#pragma once

#include <cstddef>

#include "image.hpp"

namespace g2sd {

enum class Filter { bilinear, bicubic };

/// Resize with the filter stretched over all source pixels (antialiasing), to the bit as Pillow does it.
///
/// Source: Pillow's src/libImaging/Resample.c: coefficients in double precision, rounded to 22 bits, and one pass per
/// axis, across first, each rounded to eight bits.
Image resized(const Image& image, std::size_t width, std::size_t height, Filter filter);

}  // namespace g2sd
