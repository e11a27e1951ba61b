#include "image_input.hpp"

#include <algorithm>
#include <utility>

namespace g2sd {

ImageInput::ImageInput(const InputSpec& spec, Preprocessing pre)
    : pre_(std::move(pre)), is_float_(spec.dtype == "float32"), channels_last_(spec.layout == "NHWC") {}

std::vector<std::size_t> ImageInput::shape(std::size_t count) const {
    const std::size_t side = pre_.image_px;
    if (channels_last_) {
        return {count, side, side, pre_.num_channels};
    }
    return {count, pre_.num_channels, side, side};
}

/// Where a value lies inside its image.
std::size_t ImageInput::target(std::size_t pixel, std::size_t channel) const {
    return channels_last_ ? pixel * pre_.num_channels + channel : channel * pre_.image_px * pre_.image_px + pixel;
}

void ImageInput::write(const ImageBatch& images, void* tensor) const {
    auto* bytes = static_cast<std::uint8_t*>(tensor);
    if (!is_float_ && (channels_last_ || images.channels == 1)) {
        std::copy(images.pixels.begin(), images.pixels.end(), bytes);
        return;
    }
    auto* floats = static_cast<float*>(tensor);
    for (std::size_t image = 0; image < images.count; ++image) {
        const std::size_t start = image * images.image_bytes();
        for (std::size_t index = 0; index < images.image_bytes(); ++index) {
            const std::size_t channel = index % images.channels;
            const std::size_t at = start + target(index / images.channels, channel);
            const std::uint8_t value = images.pixels[start + index];
            if (is_float_) {
                floats[at] = (static_cast<float>(value) / 255.0F - pre_.mean[channel]) / pre_.std[channel];
            } else {
                bytes[at] = value;
            }
        }
    }
}

}  // namespace g2sd
