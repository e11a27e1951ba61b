#include "predict.hpp"

#include <algorithm>
#include <cmath>

namespace g2sd {

Json Prediction::to_json() const {
    return Json::Object{{"index", index}, {"name", name}, {"probability", probability}};
}

std::vector<Prediction> best_classes(const Logits& logits, const std::vector<std::string>& class_names,
                                     std::size_t top_k) {
    const float* row = logits.row(0);
    const double largest = *std::max_element(row, row + logits.num_classes);
    double sum = 0;
    std::vector<Prediction> predictions;
    for (std::size_t index = 0; index < logits.num_classes; ++index) {
        predictions.push_back({index, class_names[index], std::exp(row[index] - largest)});
        sum += predictions.back().probability;
    }
    for (Prediction& prediction : predictions) {
        prediction.probability /= sum;
    }
    // The index settles ties, as a stable sort would.
    std::sort(predictions.begin(), predictions.end(), [](const Prediction& a, const Prediction& b) {
        return a.probability != b.probability ? a.probability > b.probability : a.index < b.index;
    });
    predictions.resize(std::min(top_k, predictions.size()));
    return predictions;
}

}  // namespace g2sd
