# A folder of images of any size, seen at 32 pixels. The loader's processes
# decode and crop; the rest of BYOL's views is made for whole batches on the
# device that trains. Without the blur, which images as small as these do not
# survive.
crop = [dict(type='RandomResizedCrop', size=32, scale=(0.2, 1.0))]
train_pipeline = [
    dict(type='LoadImage'),
    dict(type='MultiView', num_views=2, transforms=[crop]),
    dict(type='PackSelfSupInputs', meta_keys=['img_path', 'converted'])
]
view = [
    dict(type='RandomHorizontalFlip', p=0.5),
    dict(
        type='ColorJitter',
        brightness=0.4,
        contrast=0.4,
        saturation=0.2,
        hue=0.1,
        p=0.8),
    dict(type='RandomGrayscale', p=0.2),
]
train_dataloader = dict(
    batch_size=256,
    num_workers=2,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='ResumableSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='ImageFolder', data_root='data/images', pipeline=train_pipeline))
