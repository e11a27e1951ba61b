#pragma once

#include <cstddef>
#include <cstdint>

#include "bytes.hpp"

namespace g2sd {

/// Eight bits per channel, rows from the top, channels last: 1 (grey) or 3 (RGB).
struct Image {
    std::size_t width = 0;
    std::size_t height = 0;
    std::size_t channels = 0;
    Bytes pixels;

    const std::uint8_t* at(std::size_t x, std::size_t y) const { return pixels.data() + (y * width + x) * channels; }
    std::uint8_t* at(std::size_t x, std::size_t y) { return pixels.data() + (y * width + x) * channels; }
};

/// An image of zeros.
inline Image blank_image(std::size_t width, std::size_t height, std::size_t channels) {
    return {width, height, channels, Bytes(width * height * channels)};
}

/// Square images of one size: uint8 [count, side, side, channels].
struct ImageBatch {
    std::size_t count = 0;
    std::size_t side = 0;
    std::size_t channels = 0;
    Bytes pixels;

    std::size_t image_bytes() const { return side * side * channels; }

    /// `number` images from `first` on; starts again at the beginning where there are not that many.
    ImageBatch some(std::size_t first, std::size_t number) const {
        ImageBatch part{number, side, channels, {}};
        part.pixels.reserve(number * image_bytes());
        for (std::size_t i = 0; i < number; ++i) {
            const auto* start = pixels.data() + ((first + i) % count) * image_bytes();
            part.pixels.insert(part.pixels.end(), start, start + image_bytes());
        }
        return part;
    }
};

}  // namespace g2sd
