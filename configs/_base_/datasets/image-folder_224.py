_base_ = './image-folder_32.py'

# A folder of images of any size, seen at 224 pixels in BYOL's two views (arXiv
# 2006.07733, appendix B). The loader's processes decode and crop; the rest is
# made for whole batches on the device that trains. The area's mean is as free
# of aliases as Pillow's bicubic interpolation, and five times as fast.
crop = [dict(type='RandomResizedCrop', size=224, interpolation='area')]
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='MultiView', num_views=2, transforms=[crop]),
    dict(type='PackSelfSupInputs', meta_keys=['img_path', 'converted'])
]
# Three standard deviations to either side at most.
blur = dict(type='RandomGaussianBlur', kernel_size=(13, 13), sigma=(0.1, 2.0))
solarize = dict(type='RandomSolarize', thresholds=(0.5, 0.5), additions=0.0)
views = [
    [*_base_.view, dict(blur, p=1.0)],
    [*_base_.view, dict(blur, p=0.1),
     dict(solarize, p=0.2)],
]
train_dataloader = dict(
    batch_size=128, num_workers=4, dataset=dict(pipeline=train_pipeline))
