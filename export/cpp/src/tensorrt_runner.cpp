#include <NvInfer.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "cuda_memory.hpp"
#include "error.hpp"
#include "image_input.hpp"
#include "runner.hpp"
#include "text.hpp"

namespace g2sd {
namespace {

/// Keeps the first error instead of printing it: it is the cause of the others.
class Logger : public nvinfer1::ILogger {
  public:
    void log(Severity severity, const char* message) noexcept override {
        if (severity <= Severity::kERROR && told_.empty()) {
            told_ = one_line(message);
        }
    }

    std::string told() {
        std::string told = told_.empty() ? "it does not say why" : told_;
        told_.clear();
        return told;
    }

  private:
    std::string told_;
};

nvinfer1::Dims dims_from(const std::vector<std::size_t>& shape) {
    nvinfer1::Dims dims{};
    dims.nbDims = static_cast<std::int32_t>(shape.size());
    std::copy(shape.begin(), shape.end(), &dims.d[0]);
    return dims;
}

std::string runtime_name() {
    const int version = getInferLibVersion();  // 10.3.1 is 100301
    return concat(G2SD_TENSORRT_NAME, ' ', version / 10000, '.', version / 100 % 100, '.', version % 100);
}

/// Batch sizes that one optimisation profile takes.
struct Profile {
    int index = 0;
    std::size_t least = 0;
    std::size_t most = 0;
};

class TensorRtRunner : public Runner {
  public:
    TensorRtRunner(const Bundle& bundle, const Variant& variant)
        : what_((bundle.folder / variant.file).string()),
          input_(variant.input, bundle.preprocessing),
          input_name_(variant.input.name),
          output_name_(variant.output),
          num_classes_(bundle.class_names.size()) {
        open(
            bundle.read(variant.file));  // the engine's native code runs: only bytes whose digest was compared get here
        check_tensors();
        read_profiles();
        context_.reset(engine_->createExecutionContext());
        expect(context_ != nullptr, "to make an execution context");
    }

    std::string describe() const override { return runtime_name(); }

    void prepare(const ImageBatch& images) override {
        count_ = images.count;
        prepared_.resize(images.pixels.size() * input_.value_bytes());
        input_.write(images, prepared_.data());
    }

    Logits forward() override {
        const std::size_t most = profiles_.back().most;
        Logits logits;
        for (std::size_t first = 0; first < count_; first += most) {
            logits.append(run(first, std::min(most, count_ - first)));
        }
        return logits;
    }

  private:
    std::string what_;
    ImageInput input_;
    std::string input_name_;
    std::string output_name_;
    std::size_t num_classes_;
    Logger logger_;
    CudaStream stream_;
    std::unique_ptr<nvinfer1::IRuntime> runtime_;
    std::unique_ptr<nvinfer1::ICudaEngine> engine_;
    std::unique_ptr<nvinfer1::IExecutionContext> context_;
    std::vector<Profile> profiles_;
    std::map<std::string, CudaBuffer> buffers_;
    Bytes prepared_;
    std::size_t count_ = 0;
    int active_ = 0;  // the profile that a new context has

    void expect(bool done, const std::string& what) {
        if (!done) {
            throw UserError(concat(what_, ": ", runtime_name(), " refuses ", what, " (", logger_.told(), ')'));
        }
    }

    void open(const Bytes& content) {
        runtime_.reset(nvinfer1::createInferRuntime(logger_));
        expect(runtime_ != nullptr, "to start");
        engine_.reset(runtime_->deserializeCudaEngine(content.data(), content.size()));
        expect(engine_ != nullptr,
               "the engine, which belongs to the GPU model and the TensorRT that built it: build it again here");
    }

    void check_tensors() {
        const auto wanted = input_.is_float() ? nvinfer1::DataType::kFLOAT : nvinfer1::DataType::kUINT8;
        const nvinfer1::Dims output = engine_->getTensorShape(output_name_.c_str());
        if (engine_->getTensorIOMode(input_name_.c_str()) != nvinfer1::TensorIOMode::kINPUT ||
            engine_->getTensorDataType(input_name_.c_str()) != wanted || engine_->getNbIOTensors() != 2) {
            throw IntegrityError(what_ + ": its input is not the one that the manifest describes");
        }
        if (engine_->getTensorDataType(output_name_.c_str()) != nvinfer1::DataType::kFLOAT || output.nbDims != 2 ||
            output.d[1] != static_cast<std::int64_t>(num_classes_)) {
            throw IntegrityError(what_ + ": its output is not the one that the manifest describes");
        }
    }

    /// From the profile with the smallest largest batch to the one with the largest.
    void read_profiles() {
        for (int index = 0; index < engine_->getNbOptimizationProfiles(); ++index) {
            const auto bound = [&](nvinfer1::OptProfileSelector which) {
                return static_cast<std::size_t>(engine_->getProfileShape(input_name_.c_str(), index, which).d[0]);
            };
            profiles_.push_back(
                {index, bound(nvinfer1::OptProfileSelector::kMIN), bound(nvinfer1::OptProfileSelector::kMAX)});
        }
        std::sort(profiles_.begin(), profiles_.end(),
                  [](const Profile& a, const Profile& b) { return a.most < b.most; });
        expect(!profiles_.empty() && profiles_.front().most > 0, "to tell its batch sizes");
    }

    void use(const Profile& profile) {
        if (profile.index != active_) {
            expect(context_->setOptimizationProfileAsync(profile.index, stream_.get()), "an optimisation profile");
            stream_.wait();
            active_ = profile.index;
        }
    }

    void* bind(const std::string& tensor, std::size_t num_bytes) {
        void* address = buffers_[tensor].room_for(num_bytes);
        expect(context_->setTensorAddress(tensor.c_str(), address), "the memory of " + tensor);
        return address;
    }

    /// A part of the prepared images; where the profile wants more than there are, what lies in its memory fills it up.
    Logits run(std::size_t first, std::size_t count) {
        const auto fits = [count](const Profile& profile) { return profile.most >= count; };
        const Profile& profile = *std::find_if(profiles_.begin(), profiles_.end(), fits);
        use(profile);
        const std::size_t padded = std::max(count, profile.least);
        const std::size_t image_bytes = prepared_.size() / count_;
        Logits logits{count, num_classes_, std::vector<float>(count * num_classes_)};
        const std::size_t answer_bytes = logits.values.size() * sizeof(float);
        expect(context_->setInputShape(input_name_.c_str(), dims_from(input_.shape(padded))), "the batch size");
        void* const sent = bind(input_name_, padded * image_bytes);
        const void* const received = bind(output_name_, padded * num_classes_ * sizeof(float));
        const std::uint8_t* const source = prepared_.data() + first * image_bytes;
        check_cuda(cudaMemcpyAsync(sent, source, count * image_bytes, cudaMemcpyHostToDevice, stream_.get()));
        expect(context_->enqueueV3(stream_.get()), "to execute");
        check_cuda(
            cudaMemcpyAsync(logits.values.data(), received, answer_bytes, cudaMemcpyDeviceToHost, stream_.get()));
        stream_.wait();
        return logits;
    }
};

}  // namespace

std::unique_ptr<Runner> open_tensorrt(const Bundle& bundle, const Variant& variant) {
    return std::make_unique<TensorRtRunner>(bundle, variant);
}

}  // namespace g2sd
